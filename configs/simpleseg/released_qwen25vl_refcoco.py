# The released SimpleSeg-Qwen2.5-VL, tested on RefCOCO in its own prompt form and grammar:
#   python tools/test.py configs/simpleseg/released_qwen25vl_refcoco.py none
# decodes as the official code does; the same answers without its lost half pixel:
#   ... --cfg-options test_dataloader.dataset.query.codec.preset=paper-exact
# A local folder: --cfg-options model.mllm.pretrained=FOLDER
_base_ = [
    '../_base_/models/released_qwen25vl.py', '../_base_/datasets/refcoco_released.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py'
]
