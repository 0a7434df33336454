//! LLaVA 1.5 against transformers, from pixels to logits: one tile a picture, a tower with a class token.

use std::collections::BTreeMap;

use dwindle_bundle::{Call, Tiling};
use serde_json::{Map, Value, json};

use super::super::golden::{Expected, Memory, Model, NO_OVERLAY, Overlay, check, config, difference, family};
use super::super::{Family, Function};
use super::TOLERANCE;
use crate::graph::eval::{Outputs, Tensor};

pub const NAME: &str = "llava_1_5";

const IMAGES: [&str; 2] = ["landscape", "portrait"];

fn encode(model: &mut Model<'_>, expected: &Expected, image: &str) -> Outputs {
    let key = format!("{image}.pixel_values");
    let shape = expected.shape(&key);
    let pixels = Tensor::f32(vec![shape[0], shape[1] * shape[2]], expected.floats(&key));
    let graph = model.graph(Function::EncodeImage).clone();
    let call = Call { rows: 1, position: 0, tile: 0 };
    model.evaluator.run(&graph, call, &BTreeMap::from([("pixels", pixels)])).unwrap()
}

/// The tokens, with rows of the picture in order where placeholders are.
fn overlays(family: &dyn Family, expected: &Expected, image: &str) -> (Vec<u32>, Vec<Overlay>) {
    let tokens = expected.integers(&format!("{image}.input_ids"));
    let input = family.image().unwrap();
    let mut row = 0..input.max_image_rows as i32;
    let mut of = |token: &u32| match *token == input.token {
        true => ([row.next().unwrap(), 0, 0, 0], [1.0, 0.0, 0.0, 0.0]),
        false => NO_OVERLAY,
    };
    let overlays = tokens.iter().map(&mut of).collect();
    assert!(row.is_empty(), "{image}: rows are left");
    (tokens, overlays)
}

#[test]
fn pictures_from_pixels_to_tokens() {
    let (memory, expected) = (Memory::load(NAME), Expected::load(NAME));
    for file in ["config.json", "config_v4.json"] {
        let family = family(NAME, &config(NAME, file)).unwrap();
        for image in IMAGES {
            let mut model = Model::new(family.as_ref(), &memory);
            let outputs = encode(&mut model, &expected, image);
            for key in ["tower.0", "tower.1", "tower.2", "selected", "projected"] {
                let expected_key = format!("{image}.{key}");
                check(&expected_key, outputs.floats(key).unwrap(), &expected.floats(&expected_key), TOLERANCE);
            }
            let rows = model.evaluator.state("image_rows").unwrap().floats().unwrap().to_vec();
            check(&format!("{image}.packed"), &rows, &expected.floats(&format!("{image}.packed")), TOLERANCE);
            let (tokens, overlays) = overlays(family.as_ref(), &expected, image);
            let outputs = model.call(Function::Score, &tokens, 0, &overlays);
            for key in ["hidden.0", "hidden.1", "hidden.2", "final_norm", "logits"] {
                let expected_key = format!("{image}.{key}");
                check(&expected_key, outputs.floats(key).unwrap(), &expected.floats(&expected_key), TOLERANCE);
            }
            let greedy = model.greedy(&tokens, &overlays, 16);
            assert_eq!(greedy, expected.integers(&format!("{image}.greedy_ids")), "{image}");
        }
    }
}

#[test]
fn wrong_values_are_caught() {
    let (memory, expected) = (Memory::load(NAME), Expected::load(NAME));
    let right = config(NAME, "config.json");
    for (scope, key, value) in [
        ("", "vision_feature_layer", json!(-1)),
        ("", "projector_hidden_act", json!("quick_gelu")),
        ("vision_config", "hidden_act", json!("gelu")),
        ("vision_config", "layer_norm_eps", json!(1e-2)),
        ("vision_config", "num_attention_heads", json!(4)),
        ("text_config", "rope_theta", json!(5000.0)),
    ] {
        let mut wrong = right.clone();
        let map = if scope.is_empty() { &mut wrong } else { wrong[scope].as_object_mut().unwrap() };
        map.insert(key.to_owned(), value).unwrap_or_else(|| panic!("no {key}"));
        let family = family(NAME, &wrong).unwrap();
        let mut model = Model::new(family.as_ref(), &memory);
        encode(&mut model, &expected, "portrait");
        let (tokens, overlays) = overlays(family.as_ref(), &expected, "portrait");
        let outputs = model.call(Function::Score, &tokens, 0, &overlays);
        let difference = difference(outputs.floats("logits").unwrap(), &expected.floats("portrait.logits"));
        assert!(difference > 10.0 * TOLERANCE, "another {key} changes the logits by {difference:e} only");
    }
}

#[test]
fn image_input() {
    let family = family(NAME, &config(NAME, "config.json")).unwrap();
    let image = family.image().unwrap();
    assert_eq!((image.token, image.max_image_rows, image.newline), (126, 16, None));
    assert_eq!((image.tile.width, image.tile.height, image.tile.rows, image.tile.columns), (28, 28, 4, 4));
    assert_eq!(image.tiling, Tiling::CenterCrop { shortest_edge: 28 });
}

/// As `llava-hf/llava-1.5-7b-hf` was published, without what was a default.
#[test]
fn published_configuration() {
    let config = json!({
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
        "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16",
            "vocab_size": 32064
        },
        "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
        "vision_config": {
            "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
            "vocab_size": 32000
        },
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064
    });
    let processor = json!({
        "crop_size": {"height": 336, "width": 336}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
        "do_rescale": true, "do_resize": true, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 336}
    });
    let Value::Object(map) = config else { unreachable!() };
    let map: Map<String, Value> = crate::checkpoint::config::normalize(map).unwrap();
    let family = super::super::parse("llava", &map, Some(&processor)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(family.image().unwrap().max_image_rows, 576);
    assert_eq!((family.shape().hidden_size, family.shape().n_layers, family.shape().n_kv_heads), (4096, 32, 32));
    // 22 of 24 layers are used.
    assert!(family.ignored("vision_tower.vision_model.encoder.layers.23.mlp.fc1.weight"));
    assert!(!family.ignored("vision_tower.vision_model.encoder.layers.22.mlp.fc1.weight"));
}
