//! Rewriting graphs: who defines a value, who uses it, and replacing nodes while both stay known.
//!
//! A pass is a function that looks at one node and either rewrites it or returns `None`; [`Rewriter::each_node`] offers
//! it every node. Three rules keep passes short:
//! - **In place.** [`Rewriter::set`] makes the *last* node of a pattern the fused one. Its results stay the same
//!   values, so users, outputs and labels need no care.
//! - **Nothing dies loudly.** A node whose results lost their last use is removed at once, with what only it used;
//!   single-use tests therefore never see leftovers.
//! - **Order follows need.** Added nodes have no place of their own: at the end each is put just before its first
//!   user. Nodes that were there keep their order, unless one is needed earlier.
//!
//! A query costs a map look-up and a rewrite touches a node's own operands, so a pass is near-linear in the graph.

use std::collections::BTreeSet;

use crate::graph::infer::infer;
use crate::graph::{Graph, Node, Op, Recipe, Type, ValueId};

/// Names a node while a graph is being rewritten: nodes of the graph in order, then added ones.
pub type NodeId = usize;

/// A graph being rewritten.
pub struct Rewriter<'g> {
    graph: &'g mut Graph,
    /// `None` where a node was removed.
    nodes: Vec<Option<Node>>,
    /// By value: the node that defines it.
    definitions: Vec<Option<NodeId>>,
    /// By value: the nodes that use it.
    users: Vec<BTreeSet<NodeId>>,
    /// By value: whether the function returns it.
    returned: Vec<bool>,
}

impl<'g> Rewriter<'g> {
    /// Calls `visit` for each node, in execution order, then for the nodes it added; `None` means that it does not
    /// apply. Nodes that a visit added and left unused are dropped, so refusing late leaves no trace.
    pub fn each_node(graph: &'g mut Graph, mut visit: impl FnMut(&mut Rewriter<'_>, NodeId) -> Option<()>) {
        let mut rewriter = Rewriter::new(graph);
        let mut id = 0;
        while id < rewriter.nodes.len() {
            if rewriter.nodes[id].is_some() {
                let known = rewriter.nodes.len();
                visit(&mut rewriter, id);
                for added in (known..rewriter.nodes.len()).rev() {
                    rewriter.remove_unused(added);
                }
            }
            id += 1;
        }
        rewriter.finish();
    }

    fn new(graph: &'g mut Graph) -> Self {
        let mut definitions = vec![None; graph.values.len()];
        let mut users = vec![BTreeSet::new(); graph.values.len()];
        let mut returned = vec![false; graph.values.len()];
        for (id, node) in graph.nodes.iter().enumerate() {
            node.results.iter().for_each(|value| definitions[value.index()] = Some(id));
            node.operands.iter().for_each(|value| _ = users[value.index()].insert(id));
        }
        graph.outputs.iter().for_each(|(_, value)| returned[value.index()] = true);
        let nodes = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
        Rewriter { graph, nodes, definitions, users, returned }
    }

    // ---- questions ---------------------------------------------------------------------------------------------

    /// A node that was not removed.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)?.as_ref()
    }

    /// The name of the node that defines a value.
    pub fn definition_id(&self, value: ValueId) -> Option<NodeId> {
        self.definitions[value.index()]
    }

    /// The node that defines a value.
    pub fn definition(&self, value: ValueId) -> Option<&Node> {
        self.node(self.definition_id(value)?)
    }

    /// The nodes that use a value, in order.
    pub fn users(&self, value: ValueId) -> impl Iterator<Item = NodeId> + '_ {
        self.users[value.index()].iter().copied()
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        self.graph.ty(value)
    }

    /// Whether the function returns a value.
    pub fn is_returned(&self, value: ValueId) -> bool {
        self.returned[value.index()]
    }

    /// The node that uses a value, if nothing else does: one operand of one node.
    pub fn only_user(&self, value: ValueId) -> Option<NodeId> {
        let users = &self.users[value.index()];
        let &id = users.first().filter(|_| users.len() == 1 && !self.is_returned(value))?;
        let uses = self.node(id)?.operands.iter().filter(|&&operand| operand == value).count();
        (uses == 1).then_some(id)
    }

    /// The node that defines a value which only one operand of one node uses: what that node may swallow.
    pub fn single_use_definition(&self, value: ValueId) -> Option<&Node> {
        self.only_user(value)?;
        self.definition(value)
    }

    /// The recipe of a value that is constant data.
    pub fn constant(&self, value: ValueId) -> Option<&Recipe> {
        match &self.definition(value)?.op {
            Op::Weight(recipe) => Some(recipe),
            _ => None,
        }
    }

    // ---- rewrites ----------------------------------------------------------------------------------------------

    /// Adds a node of one result. `None` if the operands' types do not fit.
    pub fn add(&mut self, op: Op, operands: Vec<ValueId>) -> Option<ValueId> {
        let [ty] = <[Type; 1]>::try_from(self.infer(&op, &operands)?).ok()?;
        let result = self.graph.new_value(ty);
        self.definitions.push(None);
        self.users.push(BTreeSet::new());
        self.returned.push(false);
        self.insert(Node { op, operands, results: vec![result] });
        Some(result)
    }

    /// Makes a node compute the same results in another way. `None`, and nothing changes, if the types differ.
    pub fn set(&mut self, id: NodeId, op: Op, operands: Vec<ValueId>) -> Option<()> {
        let results = self.node(id)?.results.clone();
        self.check(&op, &operands, &results)?;
        let old = self.nodes[id].replace(Node { op, operands, results })?;
        self.relink(id, &old.operands);
        Some(())
    }

    /// Adds a node that computes existing values in the place of the nodes that did so; these are removed. `None`, and
    /// nothing changes, if the types differ or such a node has further results.
    pub fn take_over(&mut self, op: Op, operands: Vec<ValueId>, results: Vec<ValueId>) -> Option<()> {
        self.check(&op, &operands, &results)?;
        let old: BTreeSet<NodeId> =
            results.iter().map(|value| self.definitions[value.index()]).collect::<Option<_>>()?;
        let covered = |id: &NodeId| self.node(*id).is_some_and(|n| n.results.iter().all(|r| results.contains(r)));
        if !old.iter().all(covered) {
            return None;
        }
        self.insert(Node { op, operands, results });
        for id in old {
            if let Some(node) = self.nodes[id].take() {
                self.relink(id, &node.operands);
            }
        }
        Some(())
    }

    /// Uses `new`, of the same type, wherever `old` was used or returned. `None`, and nothing changes, if types differ.
    pub fn replace_value(&mut self, old: ValueId, new: ValueId) -> Option<()> {
        if self.ty(old) != self.ty(new) {
            return None;
        }
        for id in std::mem::take(&mut self.users[old.index()]) {
            if let Some(node) = &mut self.nodes[id] {
                node.operands.iter_mut().filter(|operand| **operand == old).for_each(|operand| *operand = new);
                self.users[new.index()].insert(id);
            }
        }
        for (_, value) in self.graph.outputs.iter_mut().filter(|(_, value)| *value == old) {
            *value = new;
            self.returned[new.index()] = true;
        }
        self.returned[old.index()] = false;
        if self.graph.values[new.index()].label.is_none() {
            self.graph.values[new.index()].label = self.graph.values[old.index()].label.take();
        }
        if let Some(id) = self.definitions[old.index()] {
            self.remove_unused(id);
        }
        Some(())
    }

    /// Removes a node whose results nothing uses, and then what only it used.
    pub fn remove_unused(&mut self, id: NodeId) {
        let mut candidates = vec![id];
        while let Some(id) = candidates.pop() {
            let unused = |value: &ValueId| self.users[value.index()].is_empty() && !self.is_returned(*value);
            if !self.node(id).is_some_and(|node| node.results.iter().all(unused)) {
                continue;
            }
            for operand in self.nodes[id].take().into_iter().flat_map(|node| node.operands) {
                self.users[operand.index()].remove(&id);
                candidates.extend(self.definitions[operand.index()]);
            }
        }
    }

    // ---- book-keeping ------------------------------------------------------------------------------------------

    fn infer(&self, op: &Op, operands: &[ValueId]) -> Option<Vec<Type>> {
        infer(op, &operands.iter().map(|&value| self.ty(value)).collect::<Vec<_>>()).ok()
    }

    /// Whether `op` gives results of these types; a source's type is what it is said to be.
    fn check(&self, op: &Op, operands: &[ValueId], results: &[ValueId]) -> Option<()> {
        let types = self.infer(op, operands)?;
        let source = matches!(op, Op::Input { .. } | Op::State { .. } | Op::Weight(_));
        (source || types.iter().eq(results.iter().map(|&value| self.ty(value)))).then_some(())
    }

    fn insert(&mut self, node: Node) {
        let id = self.nodes.len();
        node.results.iter().for_each(|value| self.definitions[value.index()] = Some(id));
        node.operands.iter().for_each(|value| _ = self.users[value.index()].insert(id));
        self.nodes.push(Some(node));
    }

    /// Updates the users after a node changed or went, and removes what it was the last to use.
    fn relink(&mut self, id: NodeId, old_operands: &[ValueId]) {
        let operands = self.node(id).map(|node| node.operands.clone()).unwrap_or_default();
        for operand in old_operands {
            self.users[operand.index()].remove(&id);
        }
        for operand in &operands {
            self.users[operand.index()].insert(id);
        }
        for &operand in old_operands {
            if let Some(definition) = self.definition_id(operand) {
                self.remove_unused(definition);
            }
        }
    }

    /// Puts the nodes back, each after the nodes it depends on: depth first from the old order.
    fn finish(mut self) {
        let mut pending: Vec<(NodeId, bool)> = Vec::new();
        let mut seen = vec![false; self.nodes.len()];
        let mut ordered = Vec::with_capacity(self.nodes.len());
        // Added nodes are reached from their users; those that only outputs use come last.
        for root in 0..self.nodes.len() {
            pending.push((root, false));
            while let Some((id, operands_done)) = pending.pop() {
                if operands_done {
                    ordered.extend(self.nodes[id].take());
                    continue;
                }
                if std::mem::replace(&mut seen[id], true) {
                    continue;
                }
                let Some(node) = &self.nodes[id] else { continue };
                pending.push((id, true));
                pending.extend(
                    node.operands.iter().rev().filter_map(|o| self.definitions[o.index()]).map(|def| (def, false)),
                );
            }
        }
        self.graph.nodes = ordered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::parse::parse;
    use expect_test::{Expect, expect};

    const CHAIN: &str = "graph f
        %x = input x : f32[2, 4]
        %w = weight w : f32[4]
        %a = mul %x, %w : f32[2, 4]
        %b = add %a, %a : f32[2, 4]
        %c = add %b, %x : f32[2, 4]
        return y=%c";

    /// Applies `rewrite` to the node that defines the value of this label.
    #[track_caller]
    fn check(label: &str, mut rewrite: impl FnMut(&mut Rewriter<'_>, NodeId) -> Option<()>, expected: Expect) {
        let mut graph = parse(CHAIN).unwrap();
        Rewriter::each_node(&mut graph, |rewriter, id| {
            let result = rewriter.node(id)?.results[0];
            if rewriter.graph.values[result.index()].label.as_deref() == Some(label) {
                rewrite(rewriter, id)
            } else {
                None
            }
        });
        expected.assert_eq(&graph.to_string());
    }

    fn operand(rewriter: &Rewriter<'_>, id: NodeId, index: usize) -> ValueId {
        rewriter.node(id).unwrap().operands[index]
    }

    #[test]
    fn set_keeps_results_and_removes_what_only_the_old_node_used() {
        let to_scale = |r: &mut Rewriter<'_>, id| r.set(id, Op::Scale { factor: 2.0 }, vec![operand(r, id, 1)]);
        check(
            "c",
            to_scale,
            expect![[r#"
            graph f
            %x = input x : f32[2, 4]
            %c = scale %x {factor=2.0} : f32[2, 4]
            return y=%c
        "#]],
        );
    }

    #[test]
    fn added_nodes_are_put_before_their_first_user() {
        let scale_first = |r: &mut Rewriter<'_>, id| {
            let scaled = r.add(Op::Scale { factor: 2.0 }, vec![operand(r, id, 0)])?;
            r.set(id, Op::Mul, vec![scaled, operand(r, id, 1)])
        };
        check(
            "a",
            scale_first,
            expect![[r#"
            graph f
            %x = input x : f32[2, 4]
            %w = weight w : f32[4]
            %0 = scale %x {factor=2.0} : f32[2, 4]
            %a = mul %0, %w : f32[2, 4]
            %b = add %a, %a : f32[2, 4]
            %c = add %b, %x : f32[2, 4]
            return y=%c
        "#]],
        );
    }

    #[test]
    fn a_later_node_is_pulled_forward_where_it_is_needed() {
        let mut graph = parse(
            "graph f
            %x = input x : f32[1, 2]
            %a = scale %x {factor=1.0} : f32[1, 2]
            %late = input late : f32[1, 2]
            return a=%a, late=%late",
        )
        .unwrap();
        let late = graph.nodes[2].results[0];
        Rewriter::each_node(&mut graph, |r, id| (id == 1).then(|| r.set(id, Op::Scale { factor: 3.0 }, vec![late]))?);
        expect![[r#"
            graph f
            %late = input late : f32[1, 2]
            %a = scale %late {factor=3.0} : f32[1, 2]
            return a=%a, late=%late
        "#]]
        .assert_eq(&graph.to_string());
    }

    #[test]
    fn values_are_replaced_everywhere() {
        let by_x = |r: &mut Rewriter<'_>, id| r.replace_value(r.node(id)?.results[0], operand(r, id, 0));
        check(
            "a",
            by_x,
            expect![[r#"
            graph f
            %x = input x : f32[2, 4]
            %b = add %x, %x : f32[2, 4]
            %c = add %b, %x : f32[2, 4]
            return y=%c
        "#]],
        );
        check(
            "c",
            by_x,
            expect![[r#"
            graph f
            %x = input x : f32[2, 4]
            %w = weight w : f32[4]
            %a = mul %x, %w : f32[2, 4]
            %b = add %a, %a : f32[2, 4]
            return y=%b
        "#]],
        );
    }

    #[test]
    fn taking_over_needs_equal_types_and_whole_nodes() {
        let sum = |r: &mut Rewriter<'_>, id| {
            let node = r.node(id).filter(|node| node.op == Op::Add)?;
            let (x, result) = (node.operands[1], node.results[0]);
            assert_eq!(r.take_over(Op::LastRow, vec![x], vec![result]), None, "another type");
            r.take_over(Op::Scale { factor: 5.0 }, vec![x], vec![result])
        };
        check(
            "c",
            sum,
            expect![[r#"
            graph f
            %x = input x : f32[2, 4]
            %c = scale %x {factor=5.0} : f32[2, 4]
            return y=%c
        "#]],
        );
    }

    #[test]
    fn refusing_late_leaves_no_trace() {
        let before = parse(CHAIN).unwrap().to_string();
        let mut graph = parse(CHAIN).unwrap();
        Rewriter::each_node(&mut graph, |r, id| {
            let x = *r.node(id)?.operands.first()?;
            let capped = r.add(Op::SoftCap { cap: 1.0 }, vec![x])?;
            r.add(Op::Scale { factor: 1.0 }, vec![capped])?;
            assert_eq!(r.set(id, Op::LastRow, vec![capped]), None, "types differ");
            None
        });
        assert_eq!(graph.to_string(), before);
    }

    #[test]
    fn uses_are_counted_by_operand_and_return() {
        let mut graph = parse(CHAIN).unwrap();
        let value =
            |label: &str| ValueId(graph.values.iter().position(|v| v.label.as_deref() == Some(label)).unwrap() as u32);
        let (w, a, b, c, x) = (value("w"), value("a"), value("b"), value("c"), value("x"));
        Rewriter::each_node(&mut graph, |r, _| {
            assert_eq!(r.only_user(w), Some(2));
            assert_eq!(r.only_user(a), None, "two operands of one node");
            assert_eq!(r.only_user(b), Some(4));
            assert_eq!(r.only_user(c), None, "returned");
            assert_eq!(r.only_user(x), None, "two nodes");
            assert_eq!(r.users(x).collect::<Vec<_>>(), [2, 4]);
            None
        });
    }
}
