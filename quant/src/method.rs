//! The ways of choosing codes and scales, by name.

use std::fmt;
use std::str::FromStr;

/// How codes and scales are chosen. The bytes have the same layout whatever the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Round to nearest: the greatest magnitude of a group sets its scale. As MLC LLM does.
    Rtn,
    /// Least squared error of each group, over scales of both signs and all codes.
    Search,
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 2] = [Method::Rtn, Method::Search];

    /// The name on command lines and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Rtn => "rtn",
            Method::Search => "search",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no [`Method`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no method `{0}`; there are {list}", list = Method::ALL.map(Method::name).join(", "))]
pub struct ParseMethodError(String);

impl FromStr for Method {
    type Err = ParseMethodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|m| m.name() == text).ok_or_else(|| ParseMethodError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        let error = "gptq".parse::<Method>().unwrap_err();
        assert_eq!(error.to_string(), "there is no method `gptq`; there are rtn, search");
    }
}
