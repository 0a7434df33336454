//! The families' own functions, in the shapes of the golden checkpoints, before and after the whole list.

use std::collections::BTreeSet;

use dwindle_schemes::{Format, Role};
use expect_test::{Expect, expect};

use super::*;
use crate::arch::{Family, GraphOptions, golden};
use crate::graph::{Graph, Op};

fn family(model: &str) -> Box<dyn Family> {
    golden::family(model, &golden::config(model, "config_v4.json")).unwrap()
}

/// All functions, with matrices of the language model in one format and those of the vision tower in f16.
fn graphs(model: &str, format: &str, taps: bool) -> Vec<Graph> {
    let family = family(model);
    let tensors = family.tensors();
    let formats = |name: &str| -> Format {
        let role = tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.role);
        let text = match role {
            None | Some(Role::Vector) => "f32",
            Some(Role::VisionLinear | Role::PatchEmbedding) => "f16",
            Some(_) => format,
        };
        text.parse().unwrap()
    };
    let options = GraphOptions { context: 64, taps };
    family.functions().iter().map(|&function| family.graph(function, &formats, &options)).collect()
}

/// How many nodes compute something, before and after.
#[track_caller]
fn check(model: &str, expected: Expect) {
    let mut text = String::new();
    for graph in graphs(model, "q4g32f16", false) {
        let counts = [&graph, &assert_optimizes(&graph)]
            .map(|graph| graph.nodes.iter().filter(|n| !n.operands.is_empty()).count());
        text += &format!("{}: {} -> {}\n", graph.name, counts[0], counts[1]);
    }
    expected.assert_eq(&text);
}

const MODELS: [&str; 11] = [
    "gemma",
    "gemma2",
    "gemma3_text",
    "llama",
    "llava_1_5",
    "llava_onevision",
    "mistral",
    "phi3",
    "qwen2",
    "qwen2_untied_sharded",
    "qwen3",
];

#[test]
fn nodes_left() {
    check(
        "gemma",
        expect![[r#"
        prefill: 89 -> 27
        decode: 88 -> 20
        score: 88 -> 27
    "#]],
    );
    check(
        "gemma2",
        expect![[r#"
        prefill: 133 -> 43
        decode: 132 -> 34
        score: 132 -> 43
    "#]],
    );
    check(
        "qwen2",
        expect![[r#"
        prefill: 90 -> 27
        decode: 89 -> 20
        score: 89 -> 27
    "#]],
    );
    check(
        "gemma3_text",
        expect![[r#"
        prefill: 148 -> 75
        decode: 147 -> 66
        score: 147 -> 75
    "#]],
    );
    check(
        "llama",
        expect![[r#"
        prefill: 81 -> 27
        decode: 80 -> 20
        score: 80 -> 27
    "#]],
    );
    check(
        "phi3",
        expect![[r#"
        prefill: 78 -> 27
        decode: 77 -> 20
        score: 77 -> 27
    "#]],
    );
    check(
        "qwen3",
        expect![[r#"
        prefill: 87 -> 51
        decode: 86 -> 44
        score: 86 -> 51
    "#]],
    );
    check(
        "llava_1_5",
        expect![[r#"
        prefill: 57 -> 20
        decode: 55 -> 14
        score: 56 -> 20
        encode_image: 63 -> 29
    "#]],
    );
    check(
        "llava_onevision",
        expect![[r#"
        prefill: 63 -> 20
        decode: 61 -> 14
        score: 62 -> 20
        encode_image: 62 -> 26
    "#]],
    );
}

#[test]
fn every_format_and_taps_keep_the_meaning() {
    for model in MODELS {
        for (format, taps) in
            [("f32", true), ("f16", false), ("q3g40f16", true), ("q5g32f16m", false), ("q6g32f16", true)]
        {
            for graph in graphs(model, format, taps) {
                assert_optimizes(&graph);
            }
        }
    }
}

/// A recipe that only one function uses would be stored beside what the others use.
#[test]
fn functions_of_the_language_model_share_all_weights() {
    for model in MODELS {
        let weights: Vec<(String, BTreeSet<String>)> = graphs(model, "q4g32f16", false)
            .into_iter()
            .filter(|graph| graph.name != "encode_image")
            .map(|graph| {
                let graph = assert_optimizes(&graph);
                let recipes = graph.nodes.iter().filter_map(|node| match &node.op {
                    Op::Weight(recipe) => Some(recipe.to_string()),
                    _ => None,
                });
                (graph.name.clone(), recipes.collect())
            })
            .collect();
        assert!(weights.len() >= 3, "{model}");
        for pair in weights.windows(2) {
            assert_eq!(pair[0].1, pair[1].1, "{model}: {} and {}", pair[0].0, pair[1].0);
        }
    }
}
