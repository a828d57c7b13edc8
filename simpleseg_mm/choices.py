"""Names that users choose among, apart from the code behind them: ``--help`` loads this alone.

Imports nothing. tests/test_tools.py holds the names of tables against the tables.
"""
#: annotation files of outlines, see :mod:`simpleseg_mm.export`
EXPORT_FORMATS = ('coco', 'cvat', 'geojson', 'labelme', 'svg', 'yolo')
#: complete data sets with their pictures
SET_FORMATS = ('coco', 'cvat', 'geojson', 'labelme', 'labelstudio', 'parquet', 'svg', 'yolo')
#: notations of a grammar, and what an answer can be that has one, see :mod:`simpleseg_mm.polygon`
GRAMMAR_NOTATIONS = ('regex', 'lark', 'ebnf', 'gbnf', 'json-schema')
GRAMMAR_ANSWERS = ('point', 'box', 'mask', 'extreme', 'masks', 'boxes', 'points', 'objects')
#: ways to fit outlines, see :class:`simpleseg_mm.polygon.PolygonCodec`
CODEC_PRESETS = ('default', 'paper', 'paper-exact')
#: what annotations mean of photos with an orientation tag, see
#: :class:`simpleseg_mm.datasets.LoadImage`
ORIENTATIONS = ('stored', 'upright')
#: fewest and most objects of a generated scene, see :mod:`simpleseg_mm.datasets.refshapes`
SCENE_OBJECTS = (2, 4)
#: questions about generated scenes, see :mod:`simpleseg_mm.datasets.shape_questions`
SHAPE_QUESTIONS = ('colour', 'count', 'position', 'naming_box', 'naming_point', 'grounding')
#: other trainers, their stages, and which pictures are copied for them, see
#: :mod:`simpleseg_mm.export.chat`
CHAT_TRAINERS = ('ms-swift', 'verl', 'llama-factory', 'trl')
CHAT_STAGES = ('sft', 'rl')
COPIES = ('never', 'needed', 'all')
#: how annotations of one's own are read, see :mod:`simpleseg_mm.annotation.own_data`
ASK = ('auto', 'category', 'text', 'both')
BOXES = ('auto', 'take', 'leave')
CROWDS = ('auto', 'objects', 'groups')
EXIF = ('auto', 'stored', 'upright')
#: configs that a set of one's own is trained from: name -> config, epochs and batch (None: the
#: base's own schedule). Our choice
BASES = {'nano': ('configs/simpleseg/nano_sft_refshapes.py', None, None),
         '3b-lora': ('configs/simpleseg/qwen25vl_3b_lora_sft_refcoco.py', 3, 16)}
#: of the pictures, those that validate. Our choice
VAL_SHARE = 0.1
#: small tokenizers that tools/nano builds
NANO_FAMILIES = ('kimi', 'qwen')
