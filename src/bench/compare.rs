//! Two records side by side: how many times as fast the second is, and how sure that is.

use super::record::{Measurement, Record};
use super::statistics::ratio;

/// One case that both records have.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Comparison<'a> {
    /// Of the first.
    pub first: &'a Measurement,
    /// Of the second.
    pub second: &'a Measurement,
    /// How many times as fast the second is: lower bound, estimate, upper bound (95 %).
    pub speed: [f64; 3],
}

/// The cases of the same name and kind in both, in the first's order.
#[must_use]
pub fn compare<'a>(first: &'a Record, second: &'a Record) -> Vec<Comparison<'a>> {
    let pair = |case: &'a Measurement| {
        let same = |other: &&Measurement| (&other.what, &other.of) == (&case.what, &case.of);
        let other = second.cases.iter().find(same)?;
        Some(Comparison {
            first: case,
            second: other,
            speed: ratio(case.seconds(), other.seconds())?,
        })
    };
    first.cases.iter().filter_map(pair).collect()
}
