"""Blocks of docs/annotation_tools.md that need a tool's package: run by the tests of that tool."""
import shutil

from doc_pages import ROOT, read_page

PAGE = 'docs/annotation_tools.md'


def run_block(module: str, folder, monkeypatch) -> dict:
    """Run the block that imports ``simpleseg_mm.integrations.MODULE`` in ``folder``, which holds
    the packaged example as ``photos/scene.jpg``; its names."""
    block, = [one for one in read_page((ROOT / PAGE).read_text(encoding='utf-8'), PAGE)[0]
              if one.language == 'python' and f'simpleseg_mm.integrations.{module} ' in one.text]
    assert len([line for line in block.text.splitlines() if line.strip()]) <= 10
    (folder / 'photos').mkdir()
    shutil.copy(ROOT / 'simpleseg_mm' / 'serving' / 'static' / 'example.jpg',
                folder / 'photos' / 'scene.jpg')
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(compile(block.text, block.place, 'exec'), names)
    return names
