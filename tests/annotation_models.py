"""Small random networks of the classes that the released weights have, saved as folders."""
from pathlib import Path

import torch
from transformers import (BertTokenizerFast, CLIPVisionConfig, GroundingDinoConfig,
                          GroundingDinoForObjectDetection, LlamaConfig, LlavaConfig,
                          LlavaForConditionalGeneration, PreTrainedTokenizerFast, Sam2Config,
                          Sam2Model, Sam3TrackerConfig, Sam3TrackerModel, SamConfig, SamModel)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil)

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '.', '?', 'person', 'dog', 'a', 'the', 'red', 'car',
         'on', 'left', 'thing', 'cat', '##s', 'traffic', 'light']


def detector(folder: Path) -> str:
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    (folder / 'vocab.txt').write_text('\n'.join(WORDS))
    BertTokenizerFast(str(folder / 'vocab.txt')).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size=dict(shortest_edge=64, longest_edge=96)
                                   ).save_pretrained(folder)
    config = GroundingDinoConfig(
        backbone_config=dict(model_type='swin', embed_dim=8, depths=[1, 1, 1, 1],
                             num_heads=[1, 1, 2, 2], window_size=2, image_size=64,
                             out_indices=[2, 3, 4]),
        text_config=dict(model_type='bert', vocab_size=len(WORDS), hidden_size=16,
                         num_hidden_layers=1, num_attention_heads=2, intermediate_size=32),
        num_queries=12, encoder_layers=1, encoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_layers=2, decoder_ffn_dim=32, decoder_attention_heads=2, d_model=32,
        max_text_len=24, disable_custom_kernels=True)
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    return str(folder)


def segmenter(folder: Path, family: str) -> str:
    torch.manual_seed(0)
    prompt = dict(hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = dict(hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2,
                   iou_head_hidden_dim=16, iou_head_depth=2)
    if family == 'sam':
        config = SamConfig(
            vision_config=dict(hidden_size=16, output_channels=32, num_hidden_layers=1,
                               num_attention_heads=2, image_size=64, mlp_dim=32, window_size=2,
                               global_attn_indexes=[0], num_pos_feats=16),
            prompt_encoder_config=dict(prompt, image_embedding_size=4),
            mask_decoder_config=decoder)
        SamModel(config).save_pretrained(folder)
    elif family == 'sam2':
        config = Sam2Config(
            vision_config=dict(
                backbone_config=dict(
                    model_type='sam2_hiera_det_model', hidden_size=8, num_attention_heads=1,
                    image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
                    embed_dim_per_stage=[8, 16, 32, 64],
                    num_attention_heads_per_stage=[1, 1, 2, 2], global_attention_blocks=[3],
                    window_size_per_stage=[8, 4, 4, 4],
                    window_positional_embedding_background_size=[2, 2]),
                backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
                backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]),
            prompt_encoder_config=prompt, mask_decoder_config=decoder)
        Sam2Model(config).save_pretrained(folder)
    else:
        config = Sam3TrackerConfig(
            vision_config=dict(
                backbone_config=dict(model_type='sam3_vit_model', hidden_size=16,
                                     intermediate_size=32, num_hidden_layers=1,
                                     num_attention_heads=2, image_size=56, patch_size=14,
                                     window_size=2, global_attn_indexes=[0],
                                     pretrain_image_size=56),
                fpn_hidden_size=32, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]),
            prompt_encoder_config=dict(prompt, image_size=56, patch_size=14),
            mask_decoder_config=decoder)
        Sam3TrackerModel(config).save_pretrained(folder)
    return str(folder)


CHAT = ("{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
        "{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}\n{% endfor %}"
        "assistant:")


def chat(folder: Path) -> str:
    """LLaVA: its processor needs no torchvision."""
    from transformers import LlavaProcessor
    torch.manual_seed(0)
    zoo = Path(__file__).resolve().parents[1] / 'simpleseg_mm/zoo/nano'
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(zoo / 'tokenizer.json'),
                                        pad_token='<|endoftext|>', eos_token='<|im_end|>',
                                        extra_special_tokens=['<image>'])
    tokenizer.add_special_tokens(dict(additional_special_tokens=['<image>']))
    size = dict(height=28, width=28)
    images = CLIPImageProcessorPil(size=dict(shortest_edge=28), crop_size=size)
    LlavaProcessor(images, tokenizer, patch_size=14, vision_feature_select_strategy='default',
                   chat_template=CHAT, num_additional_image_tokens=1).save_pretrained(folder)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                       num_attention_heads=2, image_size=28, patch_size=14),
        text_config=LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32,
                                num_hidden_layers=1, num_attention_heads=2,
                                num_key_value_heads=2),
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'))
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)
