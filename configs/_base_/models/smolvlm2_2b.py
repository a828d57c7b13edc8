# SmolVLM2-2.2B, trained in full. A picture is cut into tiles, and a small whole is added
# (preprocessor_config.json). Its processor needs the package num2words. What is trained is ours.
#
# By the processor of the folder; no code of ours knows the family. Tested on tiny random networks
# of it, not on released weights: compare WORK_DIR/first_batch.txt with the model card first.
model = dict(
    type='SimpleSeg',
    mllm=dict(
        type='AutoVLM',
        pretrained='HuggingFaceTB/SmolVLM2-2.2B-Instruct',
        dtype='bfloat16',
        freeze=[],
        gradient_checkpointing=True))
