# nano's shape with random weights: pictures of 112 x 112 pixels are 4 x 4 tokens. Every number is
# our choice.
model = dict(
    type='SimpleSeg',
    mllm=dict(
        type='QwenVL',
        processor='simpleseg_mm://nano',
        init='random',
        config=dict(
            model_type='qwen2_5_vl',
            tie_word_embeddings=True,
            image_token_id=6,
            video_token_id=7,
            vision_start_token_id=3,
            vision_end_token_id=4,
            text_config=dict(
                model_type='qwen2_5_vl_text',
                vocab_size=1024,
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=4096,
                rope_parameters=dict(
                    rope_type='default', rope_theta=1e4, mrope_section=[4, 6, 6]),
                tie_word_embeddings=True,
                bos_token_id=0,
                eos_token_id=2,
                pad_token_id=0),
            vision_config=dict(
                depth=4,
                hidden_size=128,
                intermediate_size=256,
                num_heads=4,
                patch_size=14,
                spatial_merge_size=2,
                temporal_patch_size=1,
                window_size=112,
                fullatt_block_indexes=[0, 1, 2, 3],
                out_hidden_size=128))),
    generation=dict(max_new_tokens=160),
    loss_chunk=4096)  # logits of its 1,024 tokens take little
