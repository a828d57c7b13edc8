# Newer models, tars in WebDataset's form, and a VLM behind an OpenAI-compatible endpoint.
_base_ = './grounding_dino_sam_qwen.py'

detector = 'openmmlab-community/mm_grounding_dino_large_all'
reader = dict(_delete_=True, type='ReadTars', paths='data/web/*.tar', shard_size=256)
stages = dict(
    detect=dict(pretrained=detector),
    segment=dict(pretrained='facebook/sam2.1-hiera-large'),
    describe=dict(_delete_=True, type='DescribeByEndpoint', base_url='http://localhost:8000/v1',
                  model='Qwen/Qwen2.5-VL-72B-Instruct', timeout=60, retries=3, concurrency=32,
                  batch_size=32, count=2, max_words=30, resources=dict(num_cpus=1)),
    verify=dict(pretrained=detector))
