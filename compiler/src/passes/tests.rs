//! Checks that all passes share, and tests of the whole list.

mod families;
mod layers;
mod meaning;
mod random;

use expect_test::Expect;

use self::meaning::assert_same_meaning;
use super::*;
use crate::graph::parse::parse;

#[track_caller]
fn parsed(text: &str) -> Graph {
    let graph = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    verify(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    graph
}

/// What a pass makes of a graph: verified, of the same meaning, and not changed by the same pass again.
#[track_caller]
fn applied(pass: &Pass, before: &Graph) -> Graph {
    let mut after = before.clone();
    (pass.run)(&mut after);
    verify(&after).unwrap_or_else(|error| panic!("{} on\n{before}\n{error}\n{after}", pass.name));
    assert_same_meaning(before, &after);
    let mut again = after.clone();
    (pass.run)(&mut again);
    assert_eq!(again.to_string(), after.to_string(), "{} twice", pass.name);
    after
}

#[track_caller]
fn pass(name: &str) -> &'static Pass {
    PASSES.iter().find(|pass| pass.name == name).expect("a pass of this name")
}

/// Checks the text of what a pass makes of a graph.
#[track_caller]
pub(super) fn check(name: &str, before: &str, after: Expect) {
    let before = parsed(before);
    after.assert_eq(&applied(pass(name), &before).to_string());
    assert_optimizes(&before);
}

/// Checks that a pass does not apply.
#[track_caller]
pub(super) fn check_refuses(name: &str, before: &str) {
    let before = parsed(before);
    assert_eq!(applied(pass(name), &before).to_string(), before.to_string());
    assert_optimizes(&before);
}

/// Checks that the whole list keeps the meaning, and finds nothing more to do when it runs again.
#[track_caller]
fn assert_optimizes(before: &Graph) -> Graph {
    let mut after = before.clone();
    optimize(&mut after).unwrap_or_else(|error| panic!("{error}\n{before}\n{after}"));
    assert_same_meaning(before, &after);
    let mut again = after.clone();
    optimize(&mut again).unwrap_or_else(|error| panic!("{error}\n{again}"));
    assert_eq!(again.to_string(), after.to_string(), "optimized twice");
    after
}

#[test]
fn names_are_file_names_and_reasons_are_given() {
    for pass in PASSES {
        let file = format!("{}/src/passes/{}.rs", env!("CARGO_MANIFEST_DIR"), pass.name);
        assert!(std::path::Path::new(&file).is_file(), "{file}");
        assert!(pass.why.contains(": ") || pass.why.contains("after ") || pass.why.contains("before "), "{}", pass.why);
    }
}

#[test]
fn a_wrong_graph_is_refused_before_any_pass() {
    let mut graph = parse("graph f\n%x = input x : f32[2]\n%y = scale %x {factor=2} : f32[3]\nreturn y=%y").unwrap();
    let plain = graph.clone();
    expect_test::expect!["before the passes: f, %y = scale: the result is f32[2], not f32[3]"]
        .assert_eq(&optimize(&mut graph).unwrap_err().to_string());
    assert_eq!(graph, plain);
}

#[test]
fn the_trace_shows_each_pass() {
    let mut graph = parsed("graph f\n%x = input x : f32[2]\n%y = scale %x {factor=1} : f32[2]\nreturn y=%y");
    let mut trace = Vec::new();
    optimize_traced(&mut graph, |pass, graph| trace.push((pass.name, graph.nodes.len()))).unwrap();
    assert_eq!(
        trace.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        PASSES.iter().map(|p| p.name).collect::<Vec<_>>()
    );
    let folded = trace.iter().position(|(name, _)| *name == "fold_constants").unwrap();
    assert!(
        trace[..folded].iter().all(|(_, nodes)| *nodes == 2) && trace[folded..].iter().all(|(_, nodes)| *nodes == 1)
    );
}

/// Random graphs: each pass alone and all of them keep the meaning, and each pass has had something to do.
#[test]
fn random_graphs_keep_their_meaning() {
    let mut fired = vec![0; PASSES.len()];
    for seed in 0..300 {
        let graph = random::graph(seed);
        verify(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
        for (pass, _) in PASSES.iter().zip(&mut fired) {
            applied(pass, &graph);
        }
        let mut before = graph.to_string();
        let mut optimized = graph.clone();
        optimize_traced(&mut optimized, |pass, after| {
            let after = after.to_string();
            let index = PASSES.iter().position(|other| other.name == pass.name).unwrap();
            fired[index] += u32::from(after != before);
            before = after;
        })
        .unwrap_or_else(|error| panic!("{error}\n{graph}"));
        assert_optimizes(&graph);
    }
    for (pass, fired) in PASSES.iter().zip(fired) {
        assert!(fired >= 10, "{} changed only {fired} graphs", pass.name);
    }
}
