//! Jinja as transformers sets it up for chat templates (`utils/chat_template_utils.py`), with limits.

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error as JinjaError, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::{Error, date, generation};

/// The most steps of a rendering; a real template takes some hundreds a message.
const MOST_STEPS: u64 = 5_000_000;
/// The most bytes of a rendering.
const MOST_BYTES: usize = 64 << 20;
/// The deepest recursion.
const MOST_DEPTH: usize = 200;

/// An environment with `source` as its template `what`.
pub(super) fn environment(what: &'static str, source: &str, now: SystemTime) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| refusal(what, &error, true))?);
    environment.set_fuel(Some(MOST_STEPS));
    environment.set_recursion_limit(MOST_DEPTH);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, JinjaError> {
        Err(JinjaError::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |pattern: &str| {
        date::format(now, pattern).map_err(|directive| {
            JinjaError::new(ErrorKind::InvalidOperation, format!("strftime_now: %{directive} is not known"))
        })
    });
    environment.add_filter("tojson", to_json);
    environment
        .add_template_owned(what, generation::replace_tags(source).into_owned())
        .map_err(|error| refusal(what, &error, true))?;
    Ok(environment)
}

/// Renders the template `what` of an [`environment`].
pub(super) fn render(environment: &Environment<'_>, what: &'static str, context: Value) -> Result<String, Error> {
    let refuse = |error: &JinjaError| refusal(what, error, false);
    let template = environment.get_template(what).map_err(|error| refuse(&error))?;
    let mut output = Limited(Vec::new());
    template.render_captured_to(context, &mut output).map_err(|error| refuse(&error))?;
    // Jinja writes text only.
    Ok(String::from_utf8_lossy(&output.0).into_owned())
}

/// Why `raise_exception` was called.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// More than [`MOST_BYTES`].
#[derive(Debug)]
struct TooMuch;

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {MOST_BYTES} bytes")
    }
}

impl std::error::Error for TooMuch {}

/// Collects at most [`MOST_BYTES`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(io::Error::other(TooMuch));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn refusal(what: &'static str, error: &JinjaError, syntax: bool) -> Error {
    let line = error.line().unwrap_or(0);
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return Error::Refused { what, line, message: message.clone() };
        }
        let inner = current.downcast_ref::<io::Error>().and_then(|io| io.get_ref());
        if current.is::<TooMuch>() || inner.is_some_and(|inner| inner.is::<TooMuch>()) {
            return Error::Endless { what, line, limit: format!("{MOST_BYTES} bytes of output") };
        }
        cause = current.source();
    }
    let reason = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    match error.kind() {
        ErrorKind::OutOfFuel => Error::Endless { what, line, limit: format!("{MOST_STEPS} steps") },
        _ if syntax => Error::Syntax { what, line, reason },
        _ => Error::Render { what, line, reason },
    }
}

/// Python's `json.dumps(value, ensure_ascii=False)`: spaces after commas and colons, nothing escaped for HTML.
fn to_json(value: &Value, arguments: Kwargs) -> Result<Value, JinjaError> {
    let indent: Option<usize> = arguments.get("indent")?;
    let sort: Option<bool> = arguments.get("sort_keys")?;
    let _: Option<bool> = arguments.get("ensure_ascii")?;
    arguments.assert_all_used()?;
    let invalid = |error: serde_json::Error| JinjaError::new(ErrorKind::BadSerialization, error.to_string());
    let mut json = serde_json::to_value(value).map_err(invalid)?;
    if sort == Some(true) {
        json.sort_all_objects();
    }
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            json.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(spaces.as_bytes())))
        }
        None => json.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced)),
    }
    .map_err(invalid)?;
    Ok(Value::from_safe_string(String::from_utf8_lossy(&bytes).into_owned()))
}

/// One line, with Python's spaces.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
