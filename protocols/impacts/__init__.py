"""The rendered set ``impacts``: things being struck, dropped and bounced, with exact onset times.

Physics in, picture and sound out: a :class:`~protocols.impacts.scene.Scene` holds every parameter of a clip,
``picture`` draws it, ``sound`` plays it by modal synthesis, ``encode`` writes the file and ``build`` renders a
whole split. A clip is 8 s long, 25 frames/s, 256 x 256 px, 44.1 kHz. Everything follows from (split, index): the
same scene gives the same pixels and samples. Nothing is downloaded and nothing has a licence but the package's.

24 classes: 8 materials (wood, metal, glass, ceramic, plastic, rubber, stone, cardboard) times 3 kinds (strike: a
mallet hits an object of the material; drop: objects of the material fall on a hard floor; bounce: balls bounce on
a slab of the material).

``VERSION`` names the pixels and samples: it goes up whenever either can change.
"""

VERSION = "1.0"
SECONDS = 8.0
FPS = 25.0
SIZE = 256
SAMPLE_RATE = 44100
