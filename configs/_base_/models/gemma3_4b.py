# Gemma 3 4B, trained in full. A picture of any shape becomes 896 x 896 pixels, 256 tokens. Some
# layers have sliding attention: rows are padded, not packed, and answers are written a token a
# pass. What is trained is ours.
#
# By the processor of the folder; no code of ours knows the family. Tested on tiny random networks
# of it, not on released weights: compare WORK_DIR/first_batch.txt with the model card first.
model = dict(
    type='SimpleSeg',
    mllm=dict(
        type='AutoVLM',
        pretrained='google/gemma-3-4b-it',
        dtype='bfloat16',
        freeze=[],
        gradient_checkpointing=True))
