//! Arithmetic, comparisons and slices, as Python does them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::fault::{Fault, Result};
use super::render::Renderer;
use super::syntax::{Binary, Comparison};
use super::text;
use super::value::{Kind, ListBuilder, Make, Range, TextBuilder, Value};

impl Renderer {
    /// `left operator right`.
    pub(super) fn binary(&self, operator: Binary, left: &Value, right: &Value) -> Result<Value> {
        if let Value::Undefined(reason) = left {
            return Fault::failed(&**reason);
        }
        if let (Binary::Remainder, Value::Str(format)) = (operator, left) {
            return self.percent(format, right);
        }
        if let Value::Undefined(reason) = right {
            return Fault::failed(&**reason);
        }
        if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
            return int_operation(operator, left, right);
        }
        if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
            return float_operation(operator, left, right);
        }
        match (operator, left, right) {
            (Binary::Add, Value::Str(left), Value::Str(right)) => {
                let mut out = TextBuilder::new(&self.meter)?;
                out.push(left)?;
                out.push(right)?;
                Ok(out.finish())
            }
            (Binary::Add, Value::List(a), Value::List(b)) if (a.kind == Kind::List) == (b.kind == Kind::List) => {
                let mut list = ListBuilder::new(&self.meter)?;
                for item in a.items.iter().chain(&b.items) {
                    list.push(item.clone())?;
                }
                list.finish(if a.kind == Kind::List { Kind::List } else { Kind::Tuple })
            }
            (Binary::Multiply, value, count) | (Binary::Multiply, count, value)
                if count.as_int().is_some() && matches!(value, Value::Str(_) | Value::List(_)) =>
            {
                self.repeat(value, count.as_int().unwrap_or(0))
            }
            _ => self.unsupported(operator, left, right),
        }
    }

    fn unsupported(&self, operator: Binary, left: &Value, right: &Value) -> Result<Value> {
        if operator == Binary::Add {
            match left {
                Value::Str(_) => {
                    return Fault::failed(format!("can only concatenate str (not \"{}\") to str", right.type_name()));
                }
                Value::List(_) => {
                    let kind = left.type_name();
                    return Fault::failed(format!(
                        "can only concatenate {kind} (not \"{}\") to {kind}",
                        right.type_name()
                    ));
                }
                _ => {}
            }
        }
        Fault::failed(format!(
            "unsupported operand type(s) for {}: '{}' and '{}'",
            operator.symbol(),
            left.type_name(),
            right.type_name()
        ))
    }

    fn repeat(&self, value: &Value, count: i64) -> Result<Value> {
        let count = usize::try_from(count).unwrap_or(0);
        match value {
            Value::Str(text) => {
                let mut out = TextBuilder::new(&self.meter)?;
                out.repeat(text, count)?;
                Ok(out.finish())
            }
            Value::List(from) => {
                let mut list = ListBuilder::new(&self.meter)?;
                if !from.items.is_empty() {
                    for _ in 0..count {
                        for item in &from.items {
                            list.push(item.clone())?;
                        }
                    }
                }
                list.finish(from.kind)
            }
            _ => Ok(Value::None),
        }
    }

    /// `-value`.
    pub(super) fn negative(&self, value: &Value) -> Result<Value> {
        match value {
            Value::Undefined(reason) => Fault::failed(&**reason),
            Value::Float(value) => Ok(Value::Float(-value)),
            other => match other.as_int() {
                Some(value) => value.checked_neg().map(Value::Int).ok_or_else(too_big),
                None => Fault::failed(format!("bad operand type for unary -: '{}'", other.type_name())),
            },
        }
    }

    /// Whether a comparison holds.
    pub(super) fn compare(&self, comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
        let ordered = |symbol: &str| self.order(left, right, symbol);
        Ok(match comparison {
            Comparison::Equal => self.equal(left, right)?,
            Comparison::NotEqual => !self.equal(left, right)?,
            Comparison::Less => ordered("<")? == Some(Ordering::Less),
            Comparison::LessOrEqual => ordered("<=")?.is_some_and(Ordering::is_le),
            Comparison::Greater => ordered(">")? == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => ordered(">=")?.is_some_and(Ordering::is_ge),
            Comparison::In => self.contains(right, left)?,
            Comparison::NotIn => !self.contains(right, left)?,
        })
    }

    /// Python's `==`.
    pub(super) fn equal(&self, left: &Value, right: &Value) -> Result<bool> {
        self.meter.step()?;
        if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
            return Ok(left == right);
        }
        if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
            return Ok(left == right);
        }
        Ok(match (left, right) {
            (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => true,
            (Value::Str(left), Value::Str(right)) => {
                self.meter.touch(left.len().min(right.len()))?;
                **left == **right
            }
            (Value::List(left), Value::List(right)) => {
                if Rc::ptr_eq(left, right) {
                    return Ok(true);
                }
                if (left.kind == Kind::List) != (right.kind == Kind::List) || left.items.len() != right.items.len() {
                    return Ok(false);
                }
                let _level = self.meter.enter()?;
                for (left, right) in left.items.iter().zip(&right.items) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Dict(left), Value::Dict(right)) => {
                if Rc::ptr_eq(left, right) {
                    return Ok(true);
                }
                if left.entries.len() != right.entries.len() {
                    return Ok(false);
                }
                let _level = self.meter.enter()?;
                for (key, (_, left)) in &left.entries {
                    self.meter.touch(key.bytes().saturating_add(16))?;
                    match right.entries.get(key) {
                        Some((_, right)) if self.equal(left, right)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::Range(left), Value::Range(right)) => left == right,
            _ => identical(left, right),
        })
    }

    /// Python's order of two values; `None` where neither comes first, as with NaN.
    pub(super) fn order(&self, left: &Value, right: &Value, symbol: &str) -> Result<Option<Ordering>> {
        self.meter.step()?;
        if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
            return Ok(Some(left.cmp(&right)));
        }
        if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
            return Ok(left.partial_cmp(&right));
        }
        match (left, right) {
            (Value::Undefined(reason), _) | (_, Value::Undefined(reason)) => Fault::failed(&**reason),
            (Value::Str(left), Value::Str(right)) => {
                self.meter.touch(left.len().min(right.len()))?;
                Ok(Some((**left).cmp(&**right)))
            }
            (Value::List(a), Value::List(b)) if (a.kind == Kind::List) == (b.kind == Kind::List) => {
                let _level = self.meter.enter()?;
                for (left, right) in a.items.iter().zip(&b.items) {
                    if !self.equal(left, right)? {
                        return self.order(left, right, symbol);
                    }
                }
                Ok(Some(a.items.len().cmp(&b.items.len())))
            }
            _ => Fault::failed(format!(
                "'{symbol}' not supported between instances of '{}' and '{}'",
                left.type_name(),
                right.type_name()
            )),
        }
    }

    /// Python's `item in container`.
    pub(super) fn contains(&self, container: &Value, item: &Value) -> Result<bool> {
        match (container, item) {
            (Value::Str(text), Value::Str(part)) => {
                self.meter.touch(text.len() + part.len())?;
                Ok(text.contains(&**part))
            }
            (Value::Str(_), other) => {
                Fault::failed(format!("'in <string>' requires string as left operand, not {}", other.type_name()))
            }
            (Value::Dict(dict), key) => Ok(dict.entries.contains_key(&key.key(&self.meter)?)),
            (Value::Range(range), item) => {
                let found = item.as_float().is_some_and(|number| {
                    let (start, step) = (range.start as f64, range.step as f64);
                    let place = (number - start) / step;
                    place >= 0.0 && place.fract() == 0.0 && (place as usize) < range.len()
                });
                Ok(found)
            }
            (Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_), _) => {
                Fault::failed(format!("argument of type '{}' is not iterable", container.type_name()))
            }
            _ => {
                for other in &self.iterate(container)?.items {
                    if self.equal(item, other)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// `object[start:stop:step]`.
    pub(super) fn slice(&self, object: &Value, bounds: [Option<Value>; 3]) -> Result<Value> {
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(&bounds) {
            *number = match bound {
                None | Some(Value::None) => None,
                Some(value) => match value.as_int() {
                    Some(value) => Some(value),
                    None => return Fault::failed("slice indices must be integers or None or have an __index__ method"),
                },
            };
        }
        let [start, stop, step] = numbers;
        let step = step.unwrap_or(1);
        if step == 0 {
            return Fault::failed("slice step cannot be zero");
        }
        match object {
            Value::Str(text) => {
                self.meter.touch(text.len())?;
                if step == 1 {
                    let range = places(text.chars().count(), start, stop, 1);
                    let mut out = TextBuilder::new(&self.meter)?;
                    out.push(text::letters(text, range.start as usize, range.len()))?;
                    return Ok(out.finish());
                }
                let _room = self.meter.hold(text.len() * 4)?;
                let letters: Vec<char> = text.chars().collect();
                let range = places(letters.len(), start, stop, step);
                let mut out = TextBuilder::new(&self.meter)?;
                for index in 0..range.len() {
                    out.push_char(letters[range.at(index) as usize])?;
                }
                Ok(out.finish())
            }
            Value::List(from) => {
                let range = places(from.items.len(), start, stop, step);
                let mut list = ListBuilder::new(&self.meter)?;
                for index in 0..range.len() {
                    list.push(from.items[range.at(index) as usize].clone())?;
                }
                list.finish(if from.kind == Kind::List { Kind::List } else { Kind::Tuple })
            }
            Value::Range(from) => {
                let range = places(from.len(), start, stop, step);
                let at = |index: i64| from.start.saturating_add(from.step.saturating_mul(index));
                let step = from.step.saturating_mul(step);
                Ok(Value::Range(Rc::new(Range { start: at(range.start), stop: at(range.stop), step })))
            }
            Value::Undefined(reason) => Fault::failed(&**reason),
            other => self.meter.undefined(&format!("'{}' object has no slices", other.type_name())),
        }
    }
}

/// The places of a slice of `length` items, in their order; all of them exist.
fn places(length: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> Range {
    let length = length as i64;
    // Python's `slice.indices`.
    let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |value: i64| {
        let value = if value < 0 { value.saturating_add(length) } else { value };
        value.clamp(least, most)
    };
    let start = start.map_or(if step > 0 { least } else { most }, bound);
    let stop = stop.map_or(if step > 0 { most } else { least }, bound);
    Range { start, stop, step }
}

fn identical(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        (Value::Cycler(a), Value::Cycler(b)) | (Value::Joiner(a), Value::Joiner(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        (Value::Lazy(a), Value::Lazy(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}

fn too_big() -> Fault {
    Fault::Failed("an integer beyond 64 bits".to_owned())
}

fn int_operation(operator: Binary, left: i64, right: i64) -> Result<Value> {
    let zero = |what: &str| Fault::failed(what);
    let result = match operator {
        Binary::Add => left.checked_add(right),
        Binary::Subtract => left.checked_sub(right),
        Binary::Multiply => left.checked_mul(right),
        Binary::Divide if right == 0 => return zero("division by zero"),
        Binary::Divide => return Ok(Value::Float(left as f64 / right as f64)),
        Binary::FloorDivide | Binary::Remainder if right == 0 => return zero("integer division or modulo by zero"),
        Binary::FloorDivide => {
            let quotient = left.checked_div(right);
            // Rounds down where signs differ.
            quotient.map(|q| if left % right != 0 && (left < 0) != (right < 0) { q - 1 } else { q })
        }
        Binary::Remainder => {
            let rest = left.wrapping_rem(right);
            Some(if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest })
        }
        Binary::Power if right < 0 && left == 0 => return zero("0.0 cannot be raised to a negative power"),
        Binary::Power if right < 0 => return Ok(Value::Float((left as f64).powf(right as f64))),
        Binary::Power => match left {
            0 | 1 => Some(if right == 0 { 1 } else { left }),
            -1 => Some(if right % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(right).ok().and_then(|right| left.checked_pow(right)),
        },
    };
    result.map(Value::Int).ok_or_else(too_big)
}

fn float_operation(operator: Binary, left: f64, right: f64) -> Result<Value> {
    let result = match operator {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        Binary::Divide if right == 0.0 => return Fault::failed("float division by zero"),
        Binary::Divide => left / right,
        Binary::FloorDivide if right == 0.0 => return Fault::failed("float floor division by zero"),
        Binary::FloorDivide => {
            let quotient = (left - remainder(left, right)) / right;
            // The quotient is whole up to rounding.
            let floor = quotient.floor();
            if quotient - floor > 0.5 { floor + 1.0 } else { floor }
        }
        Binary::Remainder if right == 0.0 => return Fault::failed("float modulo by zero"),
        Binary::Remainder => remainder(left, right),
        Binary::Power if left == 0.0 && right < 0.0 => {
            return Fault::failed("0.0 cannot be raised to a negative power");
        }
        Binary::Power if left < 0.0 && right.fract() != 0.0 => {
            return Fault::failed("complex numbers are not supported");
        }
        Binary::Power => left.powf(right),
    };
    if result.is_infinite() && left.is_finite() && right.is_finite() && operator == Binary::Power {
        return Fault::failed("(34, 'Numerical result out of range')");
    }
    Ok(Value::Float(result))
}

/// With the divisor's sign.
fn remainder(left: f64, right: f64) -> f64 {
    let rest = left % right;
    if rest == 0.0 {
        0.0_f64.copysign(right)
    } else if (rest < 0.0) != (right < 0.0) {
        rest + right
    } else {
        rest
    }
}
