//! What charts have in common: places on an axis, grid lines and their labels.

use std::fmt::Write as _;

use super::html::escape;

/// An axis: values from `low` to `high` at pixels from `from` to `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Axis {
    /// An axis that is never empty.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low,
            high,
            from,
            to,
        }
    }

    /// The pixel of a value, which is kept inside; what is no number stands at the low end.
    pub(super) fn at(&self, value: f64) -> f64 {
        // Halves, because the distance of two numbers of a file need not be one.
        let part = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        self.from + share(part) * (self.to - self.from)
    }
}

/// A share from 0 to 1; what is no number is 0.
pub(super) fn share(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

/// Horizontal lines with labels at their left, over the width of `x`.
pub(super) fn horizontal_grid(lines: &[(f64, String)], x: Axis, y: Axis) -> String {
    let mut svg = String::new();
    for (value, label) in lines {
        let at = y.at(*value);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{:.0} {at:.1}H{:.0}\"/><text x=\"{:.0}\" y=\"{:.1}\" class=\"end\">{}</text>",
            x.from,
            x.to,
            x.from - 6.0,
            at + 4.0,
            escape(label)
        );
    }
    svg
}

/// Labels below the picture.
pub(super) fn labels_below(labels: &[(f64, String)], x: Axis, bottom: f64) -> String {
    let mut svg = String::new();
    for (value, label) in labels {
        let at = x.at(*value);
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{bottom:.0}\" class=\"middle\">{}</text>",
            escape(label)
        );
    }
    svg
}

/// The most lines of a grid.
const LINES: usize = 32;

/// `first`, `first + step` and so on up to `high`, a few at most: where numbers are so large that a step changes nothing,
/// there is only the first.
pub(super) fn steps(first: f64, step: f64, high: f64) -> Vec<f64> {
    let mut values = vec![first];
    while values.len() < LINES {
        let last = values[values.len() - 1];
        let next = last + step;
        // Also false for what is no number.
        if !(next > last && next <= high) {
            break;
        }
        values.push(next);
    }
    values.retain(|value| *value <= high && value.is_finite());
    values
}

/// Round values on a logarithmic axis, from `low` to `high`: 1, 2 and 5 times powers of ten, thinned out.
pub(super) fn round_values(low: f64, high: f64) -> Vec<f64> {
    // A logarithm of 0 or of infinity is no power to begin or to end with.
    let [low, high] = [low, high].map(|end| end.clamp(f64::MIN_POSITIVE, f64::MAX));
    let mut values = Vec::new();
    let decades = (high / low).log10();
    let steps: &[f64] = match decades {
        decades if decades <= 0.7 => &[1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
        decades if decades <= 2.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    // A model that pruning has destroyed has a perplexity of many decades.
    let every = ((last - first) / 8).max(1);
    for power in (first..=last).step_by(every as usize) {
        for step in steps {
            let value = step * 10_f64.powi(power);
            if (low..=high).contains(&value) {
                values.push(value);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that JSON can hold and that arithmetic trips over.
    const HOSTILE: [f64; 9] = [
        0.0, 5e-324, 1e-300, 1.0, 9e15, 1.797e308, -5e-324, -1.0, -1.797e308,
    ];

    #[test]
    fn ticks_come_to_an_end_and_pixels_stay_inside_whatever_the_numbers_are() {
        for low in HOSTILE {
            for high in HOSTILE {
                assert!(round_values(low, high).len() <= LINES * 10, "{low} {high}");
                let axis = Axis::new((low, high), (8.0, 200.0));
                for value in HOSTILE {
                    let ticks = steps(low, value, high);
                    assert!(ticks.len() <= LINES, "{low} {value} {high}");
                    let pixel = axis.at(value);
                    assert!((8.0..=200.0).contains(&pixel), "{low} {value} {high}");
                }
                assert_eq!(axis.at(f64::NAN), 8.0);
            }
        }
        assert_eq!(steps(1.0, 2.0, 6.0), [1.0, 3.0, 5.0]);
        assert_eq!(round_values(1.0, 3.0), [1.0, 1.25, 1.5, 2.0, 2.5, 3.0]);
    }
}
