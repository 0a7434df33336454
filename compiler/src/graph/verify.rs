//! Checks the rules of the IR, those listed in [`graph`](super) and that every number is within bounds.

use std::collections::{BTreeMap, BTreeSet};

use super::infer::infer;
use super::print::{Names, is_label, is_word, mnemonic};
use super::*;

/// No dimension, offset or head count reaches this, so that products of two never overflow.
pub const MAX_DIMENSION: usize = 1 << 31;

/// A rule that a graph breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{graph}, {place}: {why}")]
pub struct VerifyError {
    /// Name of the function.
    pub graph: String,
    /// The node, as its results and operation (`%q = matmul`), or an output.
    pub place: String,
    /// What is wrong there.
    pub why: String,
}

/// Checks all rules.
///
/// # Errors
/// The first broken rule in the order of nodes, then of outputs.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    let names = Names::of(graph);
    let fail = |place: String, why: String| VerifyError { graph: graph.name.clone(), place, why };
    if !is_word(&graph.name) {
        return Err(fail("name".to_owned(), format!("`{}` is no word", graph.name.escape_debug())));
    }
    let mut checker =
        Checker { graph, names: &names, defined: vec![false; graph.values.len()], states: States::default() };
    let mut sources = BTreeSet::new();
    for node in &graph.nodes {
        let place = || {
            let results: Vec<String> = node.results.iter().map(|&id| names.get(id)).collect();
            format!("{} = {}", results.join(", "), mnemonic(&node.op))
        };
        checker.node(node).map_err(|why| fail(place(), why))?;
        if let Op::Input { name } | Op::State { name } = &node.op
            && !sources.insert(name)
        {
            return Err(fail(place(), format!("`{name}` is read by two nodes")));
        }
    }
    checker.outputs().map_err(|(output, why)| fail(format!("output `{}`", output.escape_debug()), why))
}

struct Checker<'g> {
    graph: &'g Graph,
    names: &'g Names,
    defined: Vec<bool>,
    states: States<'g>,
}

/// Which values hold which state.
#[derive(Default)]
struct States<'g> {
    /// For each value that holds a state: the state's name, and whether a later write has replaced it.
    held: BTreeMap<ValueId, (&'g str, bool)>,
    /// For each state of the graph: the value that holds it now.
    latest: BTreeMap<&'g str, ValueId>,
}

impl<'g> Checker<'g> {
    fn node(&mut self, node: &'g Node) -> Result<(), String> {
        for &operand in &node.operands {
            if !self.is_defined(operand) {
                return Err(format!("{} is used before it is defined", self.names.get(operand)));
            }
            if let Some((state, true)) = self.states.held.get(&operand) {
                return Err(format!("{} is used after `{state}` was written", self.names.get(operand)));
            }
        }
        numbers(&node.op)?;
        if node.results.is_empty() {
            return Err("there is no result".to_owned());
        }
        for &result in &node.results {
            let Some(value) = self.graph.values.get(result.index()) else {
                return Err(format!("{} is no value", self.names.get(result)));
            };
            if std::mem::replace(&mut self.defined[result.index()], true) {
                return Err(format!("{} is defined twice", self.names.get(result)));
            }
            if let Some(label) = value.label.as_deref().filter(|label| !is_label(label)) {
                return Err(format!("`{}` is no label", label.escape_debug()));
            }
            shape(&value.ty)?;
        }
        let found: Vec<&Type> = node.results.iter().map(|&id| self.graph.ty(id)).collect();
        let operands: Vec<&Type> = node.operands.iter().map(|&id| self.graph.ty(id)).collect();
        let inferred = infer(&node.op, &operands)?;
        match &node.op {
            Op::Input { .. } | Op::State { .. } | Op::Weight(_) => source(&node.op, &found)?,
            _ if inferred.iter().ne(found.iter().copied()) => {
                let list = |types: &[&Type]| types.iter().map(|ty| ty.to_string()).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "the result is {}, not {}",
                    list(&inferred.iter().collect::<Vec<_>>()),
                    list(&found)
                ));
            }
            _ => {}
        }
        self.write_states(node)
    }

    fn is_defined(&self, id: ValueId) -> bool {
        self.defined.get(id.index()).copied().unwrap_or(false)
    }

    fn write_states(&mut self, node: &'g Node) -> Result<(), String> {
        let pairs: &[(usize, usize)] = match &node.op {
            Op::State { name } => {
                self.states.held.insert(node.results[0], (name, false));
                self.states.latest.insert(name, node.results[0]);
                &[]
            }
            Op::WriteRows { .. } => &[(0, 0)],
            Op::RopeWriteKv(_) => &[(1, 1), (2, 2)],
            _ => &[],
        };
        for &(operand, result) in pairs {
            let (before, after) = (node.operands[operand], node.results[result]);
            let Some(held) = self.states.held.get_mut(&before) else {
                return Err(format!("{} is no state", self.names.get(before)));
            };
            if held.1 {
                return Err(format!("{} is written twice", self.names.get(before)));
            }
            held.1 = true;
            let name = held.0;
            self.states.held.insert(after, (name, false));
            self.states.latest.insert(name, after);
        }
        Ok(())
    }

    fn outputs(&self) -> Result<(), (&'g str, String)> {
        let mut outputs = BTreeMap::new();
        for (name, value) in &self.graph.outputs {
            let fail = |why: String| Err((name.as_str(), why));
            if !is_word(name) {
                return fail("the name is no word".to_owned());
            }
            if !self.is_defined(*value) {
                return fail(format!("{} is not defined", self.names.get(*value)));
            }
            if outputs.insert(name.as_str(), *value).is_some() {
                return fail("two outputs have this name".to_owned());
            }
            if self.states.latest.get(name.as_str()).is_some_and(|latest| latest != value) {
                return fail(format!("{} is not the state as last written", self.names.get(*value)));
            }
            if let Some((state, _)) = self.states.held.get(value).filter(|(state, _)| state != name) {
                return fail(format!("{} is the state `{state}`", self.names.get(*value)));
            }
        }
        for (state, latest) in &self.states.latest {
            let written = self.states.held.iter().any(|(_, (name, replaced))| name == state && *replaced);
            if written && outputs.get(state) != Some(latest) {
                return Err((state, "the state is written and not returned".to_owned()));
            }
        }
        Ok(())
    }
}

fn shape(ty: &Type) -> Result<(), String> {
    for (index, dim) in ty.shape.iter().enumerate() {
        match dim {
            Dim::Rows if index > 0 => return Err(format!("{ty}: only the first dimension may be symbolic")),
            Dim::Fixed(0) => return Err(format!("{ty} is empty")),
            Dim::Fixed(n) if *n >= MAX_DIMENSION => return Err(format!("{ty} is too large")),
            _ => {}
        }
    }
    if ty.shape.len() > 4 { Err(format!("{ty} has more than four dimensions")) } else { Ok(()) }
}

/// Sources have exactly one result of a type that fits what they are.
fn source(op: &Op, results: &[&Type]) -> Result<(), String> {
    let [ty] = results else { return Err(format!("one result expected, {} given", results.len())) };
    let fixed = ty.shape.iter().all(|dim| matches!(dim, Dim::Fixed(_)));
    let fits = match op {
        Op::State { .. } => fixed && ty.dtype == DType::F32 && ty.shape.len() == 2,
        Op::Weight(_) => fixed,
        _ => matches!(ty.dtype, DType::F32 | DType::U32 | DType::I32),
    };
    if !fits {
        return Err(format!("{ty} is no type for it"));
    }
    match op {
        Op::Input { name } | Op::State { name } if !is_word(name) => {
            Err(format!("`{}` is no word", name.escape_debug()))
        }
        Op::Weight(recipe) => {
            let mut bad = None;
            recipe.for_each_tensor(&mut |name| {
                if !is_word(name) {
                    bad = Some(format!("`{}` is no word", name.escape_debug()));
                }
            });
            bad.map_or(Ok(()), Err)
        }
        _ => Ok(()),
    }
}

/// Numbers of an operation are finite and small enough to multiply.
fn numbers(op: &Op) -> Result<(), String> {
    let counts = |counts: &[(&str, usize)]| {
        counts.iter().try_for_each(|(name, count)| match *count < MAX_DIMENSION {
            true => Ok(()),
            false => Err(format!("{name} {count} is too large")),
        })
    };
    let finite = |name: &str, number: f32| match number.is_finite() {
        true => Ok(()),
        false => Err(format!("{name} is {number}")),
    };
    let positive = |name: &str, number: Option<f32>| match number {
        Some(number) if !number.is_finite() || number <= 0.0 => Err(format!("{name} is {number}")),
        _ => Ok(()),
    };
    let epsilon = |number: Option<f32>| match number {
        Some(number) if !number.is_finite() || number < 0.0 => Err(format!("epsilon is {number}")),
        _ => Ok(()),
    };
    let rope = |rope: &Rope| {
        counts(&[("head_dim", rope.head_dim)])?;
        finite("magnitude", rope.magnitude)?;
        rope.inv_freq.iter().try_for_each(|&frequency| finite("a frequency", frequency))
    };
    match op {
        Op::AddScalar { value } => finite("value", *value),
        Op::Scale { factor } => finite("factor", *factor),
        Op::SoftCap { cap } => positive("cap", Some(*cap)),
        Op::Embed { scale, columns, .. } => finite("scale", *scale).and(counts(&[("columns", *columns)])),
        Op::Dequantize { columns, .. } => counts(&[("columns", *columns)]),
        Op::MatMul(m) => epsilon(m.rms_norm).and(positive("soft_cap", m.soft_cap)),
        Op::Norm(norm) => epsilon(Some(norm.eps)).and(counts(&[("heads", norm.heads)])),
        Op::Slice { start, len } | Op::SliceRows { start, len } => counts(&[("start", *start), ("len", *len)]),
        Op::Rope(r) => rope(r),
        Op::WriteRows { stride, offset } => counts(&[("stride", *stride), ("offset", *offset)]),
        Op::Attention(a) => {
            counts(&[("n_heads", a.n_heads), ("n_kv_heads", a.n_kv_heads), ("head_dim", a.head_dim)])?;
            finite("scale", a.scale)?;
            positive("soft_cap", a.soft_cap)?;
            match a.window {
                Some(0) => Err("a window of 0 shows nothing".to_owned()),
                Some(_) if !a.causal => Err("a window without causality".to_owned()),
                _ => Ok(()),
            }
        }
        Op::Patchify { height, width, patch } => counts(&[("height", *height), ("width", *width), ("patch", *patch)]),
        Op::RopeWriteKv(kv) => {
            counts(&[("n_heads", kv.n_heads), ("n_kv_heads", kv.n_kv_heads)])?;
            rope(&kv.rope)
        }
        Op::Input { .. } | Op::State { .. } | Op::Weight(_) | Op::Call(_) => Ok(()),
        Op::ConcatRows | Op::InterleaveRows | Op::Add | Op::Mul | Op::Activate(_) => Ok(()),
        Op::LastRow | Op::OverlayRows | Op::Glu(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::parse::parse;
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Expect) {
        let graph = parse(&format!("graph f\n{body}\n")).unwrap();
        let result = verify(&graph);
        expected.assert_eq(&result.map_or_else(|error| error.to_string(), |()| "fine".to_owned()));
    }

    const STATE: &str = "%x = input x : f32[rows, 4]\n%s = state kv.0.k : f32[8, 4]\n%p = call position : u32[]\n";

    #[test]
    fn types_are_checked() {
        check("%x = input x : f32[rows, 4]\n%y = scale %x {factor=2} : f32[rows, 4]\nreturn y=%y", expect!["fine"]);
        check(
            "%x = input x : f32[rows, 4]\n%y = scale %x {factor=2} : f32[rows, 5]\nreturn y=%y",
            expect!["f, %y = scale: the result is f32[rows, 4], not f32[rows, 5]"],
        );
        check(
            "%x = input x : f32[4, rows]\nreturn",
            expect!["f, %x = input: f32[4, rows]: only the first dimension may be symbolic"],
        );
        check("%x = input x : f32[0]\nreturn", expect!["f, %x = input: f32[0] is empty"]);
        check("%x = input x : f32[2147483648]\nreturn", expect!["f, %x = input: f32[2147483648] is too large"]);
        check("%x, %y = input x : f32[], f32[]\nreturn", expect!["f, %x, %y = input: one result expected, 2 given"]);
        check("%x = input x : f32[]\n%y = input x : f32[]\nreturn", expect!["f, %y = input: `x` is read by two nodes"]);
        check(
            "%x = input x : f32[4]\n%y = soft_cap %x {cap=0} : f32[4]\nreturn",
            expect!["f, %y = soft_cap: cap is 0"],
        );
        check(
            "%x = input x : f32[4]\n%y = scale %x {factor=NaN} : f32[4]\nreturn",
            expect!["f, %y = scale: factor is NaN"],
        );
        check("%x = weight w : f32[rows]\nreturn", expect!["f, %x = weight: f32[rows] is no type for it"]);
        check(
            "%x = input x : f32[]\n%y = concat_rows %x, %x : f32[]\nreturn",
            expect!["f, %y = concat_rows: f32[] has no fixed number of rows"],
        );
        let norm = |heads: u32| {
            let norm = format!("%y = rms_norm %x, %w {{heads={heads}, eps=0}} : f32[rows, 6]\nreturn y=%y");
            format!("%x = input x : f32[rows, 6]\n%w = weight w : f32[3]\n{norm}")
        };
        check(&norm(2), expect!["fine"]);
        check(&norm(3), expect!["f, %y = rms_norm: f32[3] is no vector of 2"]);
        check(&norm(4), expect!["f, %y = rms_norm: f32[rows, 6] does not hold 4 heads"]);
        check(&norm(0), expect!["f, %y = rms_norm: f32[rows, 6] does not hold 0 heads"]);
        check(
            "%x = input x : f32[3, 2]\n%y = slice_rows %x {start=2, len=2} : f32[2, 2]\nreturn y=%y",
            expect!["f, %y = slice_rows: 2 rows from 2 of f32[3, 2]"],
        );
        check(
            "%x = input x : f32[rows, 2]\n%y = slice_rows %x {start=0, len=1} : f32[1, 2]\nreturn y=%y",
            expect!["f, %y = slice_rows: f32[rows, 2] has no fixed number of rows"],
        );
    }

    #[test]
    fn states_are_one_chain() {
        let write =
            |to: &str, from: &str| format!("%{to} = write_rows %{from}, %x, %p {{stride=1, offset=0}} : f32[8, 4]\n");
        check(&format!("{STATE}{}return kv.0.k=%a", write("a", "s")), expect!["fine"]);
        check(&format!("{STATE}{}{}return kv.0.k=%b", write("a", "s"), write("b", "a")), expect!["fine"]);
        check(
            &format!("{STATE}{}{}return kv.0.k=%b", write("a", "s"), write("b", "s")),
            expect!["f, %b = write_rows: %s is used after `kv.0.k` was written"],
        );
        check(
            &format!("{STATE}{}return", write("a", "s")),
            expect!["f, output `kv.0.k`: the state is written and not returned"],
        );
        check(
            &format!("{STATE}{}return kv.0.k=%s", write("a", "s")),
            expect!["f, output `kv.0.k`: %s is not the state as last written"],
        );
        check(
            &format!("{STATE}{}return kv.0.k=%a, y=%a", write("a", "s")),
            expect!["f, output `y`: %a is the state `kv.0.k`"],
        );
        check(
            &format!("{STATE}%w = weight w : f32[8, 4]\n{}return", write("a", "w")),
            expect!["f, %a = write_rows: %w is no state"],
        );
        check(&format!("{STATE}return kv.0.k=%x"), expect!["f, output `kv.0.k`: %x is not the state as last written"]);
        check(&format!("{STATE}return y=%x, y=%x"), expect!["f, output `y`: two outputs have this name"]);
    }

    /// What no text can say: dangling identifiers and names that are no words.
    #[test]
    fn broken_graphs() {
        let sound = || parse("graph f\n%x = input x : f32[4]\n%y = add %x, %x : f32[4]\nreturn y=%y").unwrap();
        #[track_caller]
        fn broken(mut graph: Graph, damage: impl Fn(&mut Graph), expected: Expect) {
            damage(&mut graph);
            expected.assert_eq(&verify(&graph).unwrap_err().to_string());
            assert!(!graph.to_string().is_empty());
        }
        broken(
            sound(),
            |g| g.nodes[1].operands[0] = ValueId(9),
            expect!["f, %y = add: %?9 is used before it is defined"],
        );
        broken(sound(), |g| g.nodes[1].results[0] = ValueId(9), expect!["f, %?9 = add: %?9 is no value"]);
        broken(sound(), |g| g.nodes.swap(0, 1), expect!["f, %y = add: %x is used before it is defined"]);
        broken(sound(), |g| g.nodes[1].results[0] = ValueId(0), expect!["f, %x#1 = add: %x#1 is defined twice"]);
        broken(sound(), |g| g.nodes[1].results.clear(), expect!["f,  = add: there is no result"]);
        broken(sound(), |g| g.outputs[0].1 = ValueId(7), expect!["f, output `y`: %?7 is not defined"]);
        broken(sound(), |g| g.outputs[0].0 = "a b".into(), expect!["f, output `a b`: the name is no word"]);
        broken(sound(), |g| g.name.push(' '), expect!["f , name: `f ` is no word"]);
        broken(sound(), |g| g.values[0].label = Some("7".into()), expect!["f, %0 = input: `7` is no label"]);
    }
}
