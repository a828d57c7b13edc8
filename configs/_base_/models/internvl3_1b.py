# InternVL3-1B in transformers' own classes (-hf), trained in full. A picture is cut into up to 12
# tiles of 448 x 448 pixels and a small whole, 256 tokens each (preprocessor_config.json). What is
# trained is ours.
#
# By the processor of the folder; no code of ours knows the family. Tested on tiny random networks
# of it, not on released weights: compare WORK_DIR/first_batch.txt with the model card first.
model = dict(
    type='SimpleSeg',
    mllm=dict(
        type='AutoVLM',
        pretrained='OpenGVLab/InternVL3-1B-hf',
        dtype='bfloat16',
        freeze=[],
        gradient_checkpointing=True))
