//! The text exposition format of Prometheus, version 0.0.4.

use std::fmt::{self, Write};

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of values up to bounds.
    Histogram,
}

/// A number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    /// Exactly.
    Whole(u64),
    /// A ratio or a time.
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) if number.is_infinite() => f.write_str(if *number > 0.0 { "+Inf" } else { "-Inf" }),
            Self::Real(number) => number.fmt(f),
        }
    }
}

/// Labels of a sample: names, which are chosen here and need no care, and values, which are users'.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// The text while it is written.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

/// A metric whose samples are being written.
pub(super) struct Family<'e> {
    text: &'e mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric. All samples of a metric belong together.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Writes a sample.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Into<Number>) {
        self.write("", labels, None, value.into());
    }

    /// Writes a histogram: how many values were at most each bound, ascending, and of all of them their number and sum.
    pub(super) fn histogram(&mut self, labels: Labels<'_>, at_most: &[(f64, u64)], count: u64, sum: f64) {
        for (bound, number) in at_most {
            self.write("_bucket", labels, Some(("le", &bound.to_string())), Number::Whole(*number));
        }
        self.write("_bucket", labels, Some(("le", "+Inf")), Number::Whole(count));
        self.write("_sum", labels, None, Number::Real(sum));
        self.write("_count", labels, None, Number::Whole(count));
    }

    fn write(&mut self, suffix: &str, labels: Labels<'_>, last: Option<(&str, &str)>, value: Number) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            let _ = write!(self.text, "{separator}{name}=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}
