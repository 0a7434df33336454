//! What is not understood is refused by name; no configuration makes a parser panic or a graph of terabytes.

use dwindle_bundle::{Resample, Tiling};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::super::golden::{config, family, fixture};
use super::super::parse;

/// Sets `path` (dots between levels) to a value, or removes it, and reads the configuration.
#[track_caller]
fn check(name: &str, changes: &[(&str, Option<Value>)], expected: Expect) {
    let mut config = config(name, "config.json");
    for (path, value) in changes {
        let (scope, key) = path.rsplit_once('.').unwrap_or(("", path));
        let map = if scope.is_empty() { &mut config } else { config[scope].as_object_mut().unwrap() };
        match value {
            Some(value) => map.insert(key.to_owned(), value.clone()),
            None => map.remove(key),
        };
    }
    let result = family(name, &config).map(|_| "fine".to_owned());
    expected.assert_eq(&result.unwrap_or_else(|error| error.to_string()));
}

#[test]
fn unknown_family() {
    let error = parse("gpt2", &serde_json::Map::new(), None).map(|_| ()).unwrap_err();
    expect!["model_type `gpt2` is not supported: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3; compiler/src/arch/README.md says how to add one"].assert_eq(&error.to_string());
}

#[test]
fn missing_keys() {
    check(
        "gemma",
        &[("hidden_size", None), ("vocab_size", None)],
        expect!["gemma: the configuration lacks hidden_size, vocab_size; complete it, or download it again"],
    );
    check(
        "llava_onevision",
        &[("vision_config.patch_size", None), ("text_config.hidden_size", None)],
        expect![
            "llava_onevision: the configuration lacks text_config.hidden_size, vision_config.patch_size; complete it, or download it again"
        ],
    );
    check(
        "llava_onevision",
        &[("vision_config", None)],
        expect!["llava_onevision: the configuration lacks vision_config; complete it, or download it again"],
    );
    let error = parse("llava_onevision", &config("llava_onevision", "config.json"), None).map(|_| ()).unwrap_err();
    expect!["llava_onevision: the configuration lacks preprocessor_config.json; complete it, or download it again"]
        .assert_eq(&error.to_string());
}

#[test]
fn unsupported_values() {
    check("gemma", &[("hidden_act", Some(json!("gelu"))), ("hidden_activation", Some(Value::Null))], expect!["fine"]);
    check("qwen2", &[("rope_scaling", Some(Value::Null)), ("attention_dropout", Some(json!(0.1)))], expect!["fine"]);
    check(
        "qwen2",
        &[
            (
                "rope_scaling",
                Some(json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768})),
            ),
            ("hidden_act", Some(json!("relu"))),
            ("logit_scale", Some(json!(0.5))),
        ],
        expect![[r#"
            qwen2: unsupported configuration:
              - `rope_scaling.rope_type` is "yarn": expected default, linear, llama3
              - `hidden_act` is "relu": expected gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, silu, swish
              - `logit_scale` is 0.5: expected no such key, since its meaning is not implemented
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "gemma",
        &[("attention_bias", Some(json!(true)))],
        expect![[r#"
        gemma: unsupported configuration:
          - `attention_bias` is true: expected false
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "gemma2",
        &[("layer_types", Some(json!(["full_attention"])))],
        expect![[r#"
            gemma2: unsupported configuration:
              - `layer_types` is ["full_attention"]: expected full_attention or sliding_attention for each of 4 layers
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "gemma2",
        &[("query_pre_attn_scalar", Some(json!(-1)))],
        expect![[r#"
        gemma2: unsupported configuration:
          - `query_pre_attn_scalar` is -1: expected a positive number
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "qwen2",
        &[("quantization_config", Some(json!({"quant_method": "gptq"})))],
        expect![[r#"
            qwen2: unsupported configuration:
              - `quantization_config` is {"quant_method":"gptq"}: expected no such key: its weights are packed; convert the checkpoint it was made from
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("vision_feature_select_strategy", Some(json!("default")))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `vision_feature_select_strategy` is "default": expected "full"
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("vision_feature_layer", Some(json!(-4)))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `vision_feature_layer` is -4: expected the number of one of 2 layers
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("image_token_index", Some(json!(128)))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `image_token_index` is 128: expected a token below vocab_size, 128
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("vision_aspect_ratio", Some(json!("pad")))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `vision_aspect_ratio` is "pad": expected anyres_max_ and a number of tiles
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("vision_config.model_type", Some(json!("clip_vision_model")))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `vision_config.model_type` is "clip_vision_model": expected "siglip_vision_model"
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("image_grid_pinpoints", Some(json!([[16, 16]])))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `image_grid_pinpoints` is [[16,16]]: expected the same as in preprocessor_config.json
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
}

#[test]
fn rotations() {
    let scaling = |value: Value| [("rope_scaling", Some(value))];
    check("llama", &scaling(json!({"rope_type": "linear", "factor": 4.0})), expect!["fine"]);
    check("gemma3_text", &scaling(json!({"rope_type": "linear", "factor": 8.0})), expect!["fine"]);
    check(
        "llama",
        &scaling(json!({"rope_type": "llama3", "factor": 8.0})),
        expect![
            "llama: the configuration lacks rope_scaling.low_freq_factor, rope_scaling.high_freq_factor; complete it, or download it again"
        ],
    );
    check(
        "llama",
        &scaling(json!({"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": "NaN"})),
        expect!["llama: the configuration lacks rope_scaling.factor; complete it, or download it again"],
    );
    // Without a type there is no scaling, and what others would read has no effect on the one there is.
    check("llama", &scaling(json!({"factor": 8.0})), expect!["fine"]);
    check(
        "llama",
        &scaling(json!({"rope_type": "default", "original_max_position_embeddings": 4096})),
        expect!["fine"],
    );
    check(
        "llama",
        &scaling(json!({"rope_type": "linear", "factor": 4.0, "beta_fast": 32, "mscale": 1.0})),
        expect!["fine"],
    );
    check(
        "llama",
        &scaling(json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0})),
        expect!["fine"],
    );
    check(
        "llama",
        &[
            ("rope_scaling.high_freq_factor", Some(json!(1))),
            ("rope_scaling.original_max_position_embeddings", Some(json!(0))),
        ],
        expect![[r#"
            llama: unsupported configuration:
              - `rope_scaling.high_freq_factor` is 1: expected more than low_freq_factor, 1
              - `rope_scaling.original_max_position_embeddings` is 0: expected a whole number from 1 to 16777216
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    let factors = json!([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    check(
        "phi3",
        &scaling(json!({"rope_type": "longrope", "short_factor": factors, "long_factor": factors})),
        expect![[r#"
            phi3: unsupported configuration:
              - `rope_scaling.rope_type` is "longrope": expected default, linear, llama3
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "phi3",
        &[("partial_rotary_factor", Some(json!(0.75)))],
        expect![[r#"
        phi3: unsupported configuration:
          - `partial_rotary_factor` is 0.75: expected 1: heads are rotated whole
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check("phi3", &[("partial_rotary_factor", Some(json!(1)))], expect!["fine"]);
    check(
        "llama",
        &[("rope_interleaved", Some(json!(true)))],
        expect![[r#"
        llama: unsupported configuration:
          - `rope_interleaved` is true: expected false
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
}

/// Keys that people's files have and that change nothing, or turn nothing on.
#[test]
fn harmless_keys() {
    for (key, value) in [
        ("pretraining_tp", json!(2)),
        ("unk_token_id", json!(0)),
        ("unsloth_fixed", json!(true)),
        ("initializer_range", json!("NaN")),
        ("attn_logit_softcapping", Value::Null),
        ("sliding_window", Value::Null),
        ("max_window_layers", json!(28)),
        ("use_sliding_window", json!(false)),
        ("partial_rotary_factor", json!(1.0)),
        ("num_experts", json!(0)),
        ("quantization_config", json!({})),
        ("attn_implementation", json!("flash_attention_2")),
        ("is_causal", json!(true)),
    ] {
        check("llama", &[(key, Some(value))], expect!["fine"]);
    }
}

/// A list of layers counts where it is none of the family's own rule.
#[test]
fn layer_types() {
    let list = |kinds: &str| {
        let kind = |c: char| if c == 's' { "sliding_attention" } else { "full_attention" };
        [("layer_types", Some(json!(kinds.chars().map(kind).collect::<Vec<_>>())))]
    };
    let windows = |name: &str, kinds: &str| {
        let mut config = config(name, "config.json");
        config.insert("layer_types".to_owned(), list(kinds)[0].1.clone().unwrap());
        let family = family(name, &config).unwrap();
        let options = super::super::GraphOptions { context: 64, taps: false };
        let graph = family.graph(super::super::Function::Decode, &|_| "f32".parse().unwrap(), &options);
        graph.to_string().matches("window").count()
    };
    for name in ["gemma2", "gemma3_text"] {
        let layers = config(name, "config.json")["num_hidden_layers"].as_u64().unwrap() as usize;
        for kinds in ["f".repeat(layers), "s".repeat(layers), format!("f{}", "s".repeat(layers - 1))] {
            assert_eq!(windows(name, &kinds), kinds.matches('s').count(), "{name} {kinds}");
        }
    }
    check("qwen2", &list("sss"), expect!["fine"]);
    check(
        "qwen3",
        &[("layer_types", Some(json!(["full_attention", "chunked_attention", "full_attention"])))],
        expect![[r#"
            qwen3: unsupported configuration:
              - `layer_types` is ["full_attention","chunked_attention","full_attention"]: expected full_attention or sliding_attention for each of 3 layers
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
}

#[test]
fn layers_of_a_tower() {
    check("llava_1_5", &[("vision_feature_layer", Some(json!([-2])))], expect!["fine"]);
    check("llava_onevision", &[("vision_feature_layer", Some(json!([-1])))], expect!["fine"]);
    check(
        "llava_1_5",
        &[("vision_feature_layer", Some(json!([])))],
        expect![[r#"
            llava: unsupported configuration:
              - `vision_feature_layer` is []: expected the number of one of 3 layers
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_1_5",
        &[("vision_feature_layer", Some(json!([-2, -5])))],
        expect![[r#"
        llava: unsupported configuration:
          - `vision_feature_layer` is [-2,-5]: expected the number of one of 3 layers
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_1_5",
        &[("vision_feature_layer", Some(json!(i64::MIN)))],
        expect![[r#"
        llava: unsupported configuration:
          - `vision_feature_layer` is -9223372036854775808: expected the number of one of 3 layers
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_1_5",
        &[("vision_feature_select_strategy", Some(json!("full")))],
        expect![[r#"
        llava: unsupported configuration:
          - `vision_feature_select_strategy` is "full": expected "default"
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_1_5",
        &[("vision_config.model_type", Some(json!("siglip_vision_model")))],
        expect![[r#"
        llava: unsupported configuration:
          - `vision_config.model_type` is "siglip_vision_model": expected "clip_vision_model"
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_1_5",
        &[("vision_config.image_size", Some(json!(35)))],
        expect![[r#"
        llava: unsupported configuration:
          - `preprocessor_config.json: crop_size` is {"height":28,"width":28}: expected the tower's image_size, 35 by 35
          - `preprocessor_config.json: size` is {"shortest_edge":28}: expected a shortest_edge of 35, the tower's image_size, or more
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_1_5",
        &[("text_config.model_type", Some(json!("mistral")))],
        expect![[r#"
        llava: unsupported configuration:
          - `text_config.model_type` is "mistral": expected "llama"
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_1_5",
        &[("vision_config", None)],
        expect!["llava: the configuration lacks vision_config; complete it, or download it again"],
    );
    // Sizes of the text model have transformers' defaults.
    check("llava_1_5", &[("text_config.hidden_size", None)], expect!["fine"]);
    let mut processor: Value =
        serde_json::from_str(include_str!("../../../../tests/golden/llava_1_5/preprocessor_config.json")).unwrap();
    processor["image_processor_type"] = json!("LlavaImageProcessor");
    processor["do_pad"] = json!(true);
    processor["size"] = json!({"shortest_edge": 20});
    let error = parse("llava", &config("llava_1_5", "config.json"), Some(&processor)).map(|_| ()).unwrap_err();
    expect![[r#"
        llava: unsupported configuration:
          - `preprocessor_config.json: image_processor_type` is "LlavaImageProcessor": expected CLIPImageProcessor, CLIPImageProcessorFast, CLIPImageProcessorPil, CLIPFeatureExtractor
          - `preprocessor_config.json: do_pad` is true: expected false
          - `preprocessor_config.json: size` is {"shortest_edge":20}: expected a shortest_edge of 28, the tower's image_size, or more
        Use a checkpoint without it, or add support in compiler/src/arch"#]].assert_eq(&error.to_string());
}

#[test]
fn hostile_sizes() {
    check(
        "gemma",
        &[("hidden_size", Some(json!(u64::MAX))), ("num_attention_heads", Some(json!(0)))],
        expect![[r#"
        gemma: unsupported configuration:
          - `hidden_size` is 18446744073709551615: expected a whole number from 1 to 131072
          - `num_attention_heads` is 0: expected a whole number from 1 to 1024
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "gemma",
        &[("num_key_value_heads", Some(json!(3))), ("head_dim", Some(json!(31)))],
        expect![[r#"
            gemma: unsupported configuration:
              - `num_key_value_heads` is 3: expected a divisor of num_attention_heads, 4
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "qwen2",
        &[("hidden_size", Some(json!("64"))), ("rope_theta", Some(json!(1e300)))],
        expect![[r#"
            qwen2: unsupported configuration:
              - `hidden_size` is "64": expected a whole number from 1 to 131072
              - `rope_theta` is 1e+300: expected a positive number
            Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("vision_config.patch_size", Some(json!(17)))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `vision_config.patch_size` is 17: expected at most image_size, 16
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llava_onevision",
        &[("vision_config.image_size", Some(json!(1))), ("vision_config.patch_size", Some(json!(1)))],
        expect![[r#"
        llava_onevision: unsupported configuration:
          - `preprocessor_config.json: size` is {"height":16,"width":16}: expected the tower's image_size, 1 by 1
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
}

/// Each value of each level replaced by each of these: an error or a model, whose graphs then can be made.
#[test]
fn any_value_anywhere() {
    let values = [
        json!(null),
        json!(0),
        json!(-1),
        json!(1),
        json!(3),
        json!(1e308),
        json!(u64::MAX),
        json!("x"),
        json!([]),
        json!([[0, 1]]),
        json!({}),
        json!(true),
    ];
    for name in &super::super::families().map(fixture).collect::<Vec<_>>() {
        let right = config(name, "config.json");
        let mut paths: Vec<(Option<&str>, String)> = right.keys().map(|key| (None, key.clone())).collect();
        for scope in ["text_config", "vision_config"] {
            if let Some(Value::Object(map)) = right.get(scope) {
                paths.extend(map.keys().map(|key| (Some(scope), key.clone())));
            }
        }
        for (scope, key) in paths.iter().filter(|(_, key)| key != "model_type") {
            for value in &values {
                let mut wrong = right.clone();
                let map = match scope {
                    Some(scope) => wrong[*scope].as_object_mut().unwrap(),
                    None => &mut wrong,
                };
                map.insert(key.clone(), value.clone());
                let Ok(family) = family(name, &wrong) else { continue };
                let options = super::super::GraphOptions { context: 64, taps: false };
                for &function in family.functions() {
                    let graph = family.graph(function, &|_| "f16".parse().unwrap(), &options);
                    crate::graph::verify::verify(&graph)
                        .unwrap_or_else(|error| panic!("{name} {key}={value}: {error}"));
                }
            }
        }
    }
}

#[test]
fn image_input() {
    let family = family("llava_onevision", &config("llava_onevision", "config.json")).unwrap();
    let image = family.image().unwrap();
    assert_eq!((image.token, image.max_image_rows, image.newline), (126, 17 * 16 + 1, Some(17 * 16)));
    let tile = &image.tile;
    assert_eq!((tile.width, tile.height, tile.rows, tile.columns), (16, 16, 4, 4));
    assert_eq!((tile.mean, tile.std, tile.resample), ([0.5; 3], [0.5; 3], Resample::Bicubic));
    assert!((tile.rescale - 1.0 / 255.0).abs() < 1e-9);
    let Tiling::AnyRes { pinpoints, max_tiles, among_others } = &image.tiling else { panic!("{:?}", image.tiling) };
    assert_eq!((pinpoints.len(), pinpoints[1], *max_tiles), (16, [16, 32], Some(9)));
    assert_eq!(*among_others, Some([127; 3]));
}

/// Configurations as their publishers wrote them, which leave out what is a default.
#[test]
fn published_configurations() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let processor = |edge: u32, pinpoints: &Value| {
        json!({"do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true, "resample": 3,
            "image_grid_pinpoints": pinpoints, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "LlavaOnevisionImageProcessor", "processor_class": "LlavaOnevisionProcessor",
            "rescale_factor": 0.00392156862745098, "size": {"height": edge, "width": edge}})
    };
    let table = [
        ("compiler/src/synth/presets/gemma-2b.json", 256_000, true),
        ("compiler/src/synth/presets/gemma-2-2b.json", 256_000, true),
        ("compiler/src/synth/presets/gemma-3-1b.json", 262_144, true),
        ("compiler/src/synth/presets/llama-3.2-1b.json", 128_256, true),
        ("compiler/src/synth/presets/mistral-7b.json", 32_000, false),
        ("compiler/src/synth/presets/phi-3-mini-4k.json", 32_064, false),
        ("compiler/src/synth/presets/qwen2-0.5b.json", 151_936, true),
        ("compiler/src/synth/presets/qwen3-0.6b.json", 151_936, true),
        ("compiler/src/synth/presets/smollm2-135m.json", 49_152, true),
        ("compiler/src/synth/presets/tinyllama-1.1b.json", 32_000, false),
        ("compiler/src/synth/presets/llava-onevision-0.5b.json", 152_000, true),
        ("demo/pocket-gemma/config.json", 2048, true),
        ("demo/pocket-llava/config.json", 768, true),
    ];
    for (path, vocab_size, tied) in table {
        let bytes = std::fs::read(format!("{root}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"));
        let config = crate::checkpoint::config::normalize(serde_json::from_slice(&bytes).unwrap()).unwrap();
        let processor = config
            .get("image_grid_pinpoints")
            .map(|pinpoints| processor(config["vision_config"]["image_size"].as_u64().unwrap() as u32, pinpoints));
        let family = parse(config["model_type"].as_str().unwrap(), &config, processor.as_ref());
        let family = family.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(family.shape().vocab_size, vocab_size, "{path}");
        assert_eq!(!family.tensors().iter().any(|tensor| tensor.name.ends_with("lm_head.weight")), tied, "{path}");
        if path.ends_with("llava-onevision-0.5b.json") {
            let image = family.image().unwrap();
            assert_eq!((image.tile.rows, image.tile.columns), (27, 27));
            assert_eq!(image.max_image_rows, 37 * 729 + 1);
        }
    }
}
