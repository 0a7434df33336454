//! Removes nodes whose results nothing uses, unused inputs and weights among them.

use super::rewriter::Rewriter;
use crate::graph::Graph;

pub(super) fn run(graph: &mut Graph) {
    // A removal also takes what only the removed node used, so one visit each is enough.
    Rewriter::each_node(graph, |rewriter, id| {
        rewriter.remove_unused(id);
        Some(())
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_refuses};
    use expect_test::expect;

    #[test]
    fn chains_die_as_a_whole() {
        check(
            "remove_dead",
            "graph f
            %x = input x : f32[1, 4]
            %unused = input unused : f32[1, 4]
            %w = weight w : f32[4]
            %a = mul %unused, %w : f32[1, 4]
            %b = scale %a {factor=2.0} : f32[1, 4]
            %c = scale %x {factor=3.0} : f32[1, 4]
            return y=%c",
            expect![[r#"
                graph f
                %x = input x : f32[1, 4]
                %c = scale %x {factor=3.0} : f32[1, 4]
                return y=%c
            "#]],
        );
    }

    #[test]
    fn what_is_returned_lives() {
        check_refuses(
            "remove_dead",
            "graph f
            %x = input x : f32[1, 4]
            %a = scale %x {factor=2.0} : f32[1, 4]
            %b = scale %a {factor=3.0} : f32[1, 4]
            return a=%a, b=%b",
        );
    }
}
