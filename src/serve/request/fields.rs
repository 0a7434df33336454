//! Typed access to the fields of a JSON object, with errors that name the field.

use serde_json::{Map, Value};

use crate::serve::error::ApiError;

/// An object of a request, and its path within it.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The request's own object.
    ///
    /// # Errors
    /// It is something else.
    pub fn root(value: &'a Value) -> Result<Fields<'a>, ApiError> {
        Fields::of(value, "")
    }

    /// An object within the request.
    ///
    /// # Errors
    /// It is something else.
    pub fn of(value: &'a Value, path: &str) -> Result<Fields<'a>, ApiError> {
        match value {
            Value::Object(map) => Ok(Fields { map, path: path.to_owned() }),
            other if path.is_empty() => {
                Err(ApiError::bad(format!("the request's body must be a JSON object, not {}", kind(other))))
            }
            other => Err(wrong(path, "an object", other)),
        }
    }

    /// The path of a field within the request.
    pub fn path(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// A field; `null` counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&self, name: &str) -> Result<&'a Value, ApiError> {
        let missing = || {
            let path = self.path(name);
            ApiError::field(path.clone(), format!("`{path}` is missing")).with_code("missing_required_parameter")
        };
        self.get(name).ok_or_else(missing)
    }

    /// A string.
    ///
    /// # Errors
    /// It is something else.
    pub fn string(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, "a string", Value::as_str)
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// It is missing or something else.
    pub fn required_string(&self, name: &str) -> Result<&'a str, ApiError> {
        let value = self.required(name)?;
        value.as_str().ok_or_else(|| wrong(&self.path(name), "a string", value))
    }

    /// A boolean; `false` where it is absent.
    ///
    /// # Errors
    /// It is something else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "a boolean", Value::as_bool)
    }

    /// A list.
    ///
    /// # Errors
    /// It is something else.
    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.typed(name, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    /// An object.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        self.get(name).map(|value| Fields::of(value, &self.path(name))).transpose()
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// It is something else, or outside.
    pub fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number as f32)),
            Some(number) => {
                let path = self.path(name);
                let message = match most.is_finite() && most < 1e9 {
                    true => format!("`{path}` is {number}; it must be between {least} and {most}"),
                    false => format!("`{path}` is {number}; it must be at least {least}"),
                };
                Err(ApiError::field(path, message))
            }
            None => Err(wrong(&self.path(name), "a number", value)),
        }
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// It is something else, or outside.
    pub fn integer(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // Some clients send `512.0`.
        let whole = value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64));
        match whole {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Some(number) => {
                let path = self.path(name);
                let message = format!("`{path}` is {number}; it must be between {least} and {most}");
                Err(ApiError::field(path, message))
            }
            None => Err(wrong(&self.path(name), "an integer", value)),
        }
    }

    /// The elements of this object.
    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    /// Refuses a field that this server knows, but does not implement.
    ///
    /// # Errors
    /// It is there, with a value that asks for something.
    pub fn refuse(&self, name: &str, why: &str) -> Result<(), ApiError> {
        let asks = match self.get(name) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        let path = self.path(name);
        match asks {
            true => Err(ApiError::unsupported(path.clone(), format!("`{path}` is not supported: {why}"))),
            false => Ok(()),
        }
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong(&self.path(name), expected, value))
    }
}

/// A value of the wrong type.
pub fn wrong(path: &str, expected: &str, found: &Value) -> ApiError {
    ApiError::field(path, format!("`{path}` must be {expected}, not {}", kind(found))).with_code("invalid_type")
}

/// What a value is.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_checked_and_named() {
        let value = json!({
            "a": { "text": 5, "whole": 3.0, "half": 0.5, "nothing": null, "far": 9, "audio": {}, "off": false, "none": [] }
        });
        let root = Fields::root(&value).unwrap();
        let fields = root.object("a").unwrap().unwrap();
        let message = |error: ApiError| format!("{}: {}", error.param.unwrap_or_default(), error.message);
        assert_eq!(message(fields.string("text").unwrap_err()), "a.text: `a.text` must be a string, not a number");
        assert_eq!(fields.integer("whole", 0, 5).unwrap(), Some(3));
        assert_eq!(
            message(fields.integer("half", 0, 5).unwrap_err()),
            "a.half: `a.half` must be an integer, not a number"
        );
        assert_eq!(
            message(fields.integer("far", 0, 5).unwrap_err()),
            "a.far: `a.far` is 9; it must be between 0 and 5"
        );
        assert_eq!(fields.number("half", 0.0, 1.0).unwrap(), Some(0.5));
        assert_eq!(
            message(fields.number("far", 0.0, 1.0).unwrap_err()),
            "a.far: `a.far` is 9; it must be between 0 and 1"
        );
        assert_eq!(fields.string("nothing").unwrap(), None);
        assert_eq!(message(fields.required("gone").unwrap_err()), "a.gone: `a.gone` is missing");
        assert_eq!(
            message(fields.refuse("audio", "no model speaks").unwrap_err()),
            "a.audio: `a.audio` is not supported: no model speaks"
        );
        fields.refuse("off", "").unwrap();
        fields.refuse("none", "").unwrap();
        assert!(Fields::root(&json!([])).unwrap_err().message.contains("not an array"));
    }
}
