"""The pure parts load none of the frameworks, so that any other trainer can use them."""
import subprocess
import sys

import pytest


@pytest.mark.parametrize('package, banned', [
    ('simpleseg_mm.polygon', {'torch', 'mmengine', 'mmcv', 'mmdet', 'transformers', 'peft'}),
    ('simpleseg_mm.export', {'torch', 'mmengine', 'mmcv', 'mmdet', 'transformers', 'peft'}),
    ('simpleseg_mm.files', {'torch', 'cv2', 'mmengine', 'mmcv', 'mmdet', 'transformers', 'peft'}),
    ('simpleseg_mm.client', {'torch', 'mmengine', 'mmcv', 'mmdet', 'transformers', 'peft',
                             'matplotlib'}),
    ('simpleseg_mm.serving', {'torch', 'mmengine', 'mmcv', 'mmdet', 'transformers', 'peft'}),
    ('simpleseg_mm.rl', {'mmengine', 'mmcv', 'mmdet', 'transformers', 'peft'}),
])
def test_no_framework_is_loaded(package, banned):
    code = f'import sys, {package}; print(*sorted({banned} & set(sys.modules)))'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.split()) == (0, []), result.stderr
