//! A spec with the name that its port is to have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{PortSpec, SpecError};

/// Most bytes of a port's name.
const LONGEST: usize = 64;

/// Name of a port: 1 to 64 letters, digits and `.:_@-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortName(String);

/// The text was no name of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a name for a port (expected {EXPECTED})")]
pub struct NotPortName;

const EXPECTED: &str = "1 to 64 letters, digits and `.`, `:`, `_`, `@`, `-`";

impl PortName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PortName {
    type Err = NotPortName;

    fn from_str(text: &str) -> Result<Self, NotPortName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '@' | '-');
        if (1..=LONGEST).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotPortName)
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A [`PortSpec`] and, as the key `name=NAME` anywhere among its keys, the name of the port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedSpec {
    /// Its name; `None` makes one from the kind or the device.
    pub name: Option<PortName>,
    /// What it is.
    pub spec: PortSpec,
}

impl From<PortSpec> for NamedSpec {
    fn from(spec: PortSpec) -> Self {
        Self { name: None, spec }
    }
}

impl FromStr for NamedSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let is_name = |item: &&str| item.starts_with("name=");
        let mut items = text.split(',');
        // The first item is the kind, and whatever follows it is no key.
        let head = items.next().unwrap_or_default();
        let names: Vec<&str> = items.clone().filter(is_name).collect();
        if names.is_empty() {
            return Ok(Self { name: None, spec: text.parse()? });
        }
        let key = || "name".to_owned();
        let [item] = names[..] else {
            return Err(SpecError::Twice { spec: text.into(), key: key() });
        };
        let value = item.trim_start_matches("name=");
        let name = value.parse().map_err(|NotPortName| SpecError::Value {
            spec: text.into(),
            key: key(),
            value: value.into(),
            expected: EXPECTED,
        })?;
        let rest: Vec<&str> = std::iter::once(head).chain(items.filter(|item| !is_name(item))).collect();
        Ok(Self { name: Some(name), spec: rest.join(",").parse()? })
    }
}

impl fmt::Display for NamedSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)?;
        match &self.name {
            Some(name) => write!(f, ",name={name}"),
            None => Ok(()),
        }
    }
}

impl Serialize for NamedSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NamedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A visitor fails while the text is read, which is when it is known where that stands.
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = NamedSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port such as \"tap=tap0\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NamedSpec, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_may_stand_anywhere_among_the_keys() {
        for (text, printed) in [
            ("null,name=sink", "null,name=sink"),
            ("tap=tap0,name=a.b:c_d@e-f,queues=2", "tap=tap0,queues=2,name=a.b:c_d@e-f"),
            ("vhost-user=/run/vm0.sock,name=web", "vhost-user=/run/vm0.sock,name=web"),
            ("gen=max", "gen=max"),
        ] {
            let spec: NamedSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), printed, "{text}");
            assert_eq!(printed.parse::<NamedSpec>().unwrap(), spec);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "a b", "a/b", "-a", "ä", "\u{1b}[1m", &"x".repeat(65)] {
            let error = format!("null,name={name}").parse::<NamedSpec>().unwrap_err().to_string();
            assert!(error.contains("1 to 64 letters"), "{name}: {error}");
        }
        let error = "null,name=a,name=b".parse::<NamedSpec>().unwrap_err().to_string();
        assert!(error.contains("the key `name` is given twice"), "{error}");
        // The name is not a kind.
        assert!("name=a".parse::<NamedSpec>().is_err());
        let error = "null,name=a,queues=2".parse::<NamedSpec>().unwrap_err().to_string();
        assert!(error.contains("unknown key `queues`"), "{error}");
    }
}
