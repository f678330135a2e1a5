//! Values that may stand without quotes.

use std::fmt;
use std::str::FromStr;

use serde::de::{Unexpected, Visitor};

/// A number or a text, whichever the file has.
pub(super) struct NumberOrText<T>(pub(super) &'static str, pub(super) std::marker::PhantomData<T>);

impl<T: FromStr + TryFrom<u64>> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        let converted = u64::try_from(number).ok().and_then(|number| T::try_from(number).ok());
        converted.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}
