//! How many weights of each group of M are not zero, at most.

/// The widths of groups that are looked at: each the double of the one before.
pub(super) const WIDTHS: [usize; 5] = [2, 4, 8, 16, 32];

/// The widest group.
pub(super) const WIDEST: usize = 32;

/// The most weights that are not zero in any group, for each of [`WIDTHS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Most(pub [u8; 5]);

impl Most {
    pub(super) fn add(&mut self, other: &Self) {
        for (most, other) in self.0.iter_mut().zip(other.0) {
            *most = (*most).max(other);
        }
    }

    /// Whether no pattern can hold any more: in some group of each width no weight is zero.
    pub(super) fn is_full(&self) -> bool {
        self.0.iter().zip(WIDTHS).all(|(&n, m)| usize::from(n) == m)
    }

    /// Looks at a row; `live` is 1 for a weight that is not zero, and 0 for one that is. A last group may be shorter.
    #[inline(always)]
    pub(super) fn row(&mut self, live: &[u8]) {
        const STRETCH: usize = 8 * WIDEST;
        let mut sums = [0_u8; STRETCH];
        for stretch in live.chunks(STRETCH) {
            sums[..stretch.len()].copy_from_slice(stretch);
            sums[stretch.len()..].fill(0);
            let mut len = STRETCH;
            for most in &mut self.0 {
                len /= 2;
                let mut largest = 0;
                for i in 0..len {
                    let sum = sums[2 * i] + sums[2 * i + 1];
                    sums[i] = sum;
                    largest = largest.max(sum);
                }
                *most = (*most).max(largest);
            }
        }
    }

    /// Looks at up to [`WIDEST`] rows of `width` weights whose groups run down the columns; `live` as for [`Self::row`]. It is
    /// used up.
    #[inline(always)]
    pub(super) fn columns(&mut self, live: &mut [u8], width: usize) {
        let mut rows = live.len() / width;
        for most in &mut self.0 {
            let mut largest = 0;
            for pair in 0..rows.div_ceil(2) {
                let (before, at) = live.split_at_mut(2 * pair * width);
                let has_two = 2 * pair + 1 < rows;
                for column in 0..width {
                    let second = if has_two { at[width + column] } else { 0 };
                    let sum = at[column] + second;
                    largest = largest.max(sum);
                    match before.get_mut(pair * width + column) {
                        Some(place) => *place = sum,
                        // The first pair stays where it is.
                        None => at[column] = sum,
                    }
                }
            }
            *most = (*most).max(largest);
            rows = rows.div_ceil(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One group at a time, as it is defined.
    fn simple(live: &[u8]) -> Most {
        Most(WIDTHS.map(|m| {
            let groups = live.chunks(m).map(|group| group.iter().sum::<u8>());
            groups.max().unwrap_or(0)
        }))
    }

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                u8::from(state.is_multiple_of(3))
            })
            .collect()
    }

    #[test]
    fn rows_are_counted_as_defined() {
        for len in [1, 2, 3, 31, 32, 33, 255, 256, 257, 600] {
            let live = random(len, len as u64);
            let mut most = Most::default();
            most.row(&live);
            assert_eq!(most, simple(&live), "{len}");
        }
    }

    #[test]
    fn columns_are_counted_as_rows_of_the_transpose() {
        for (rows, width) in [(1, 1), (2, 3), (4, 5), (7, 2), (31, 3), (32, 8)] {
            let live = random(rows * width, rows as u64 * width as u64);
            let mut expected = Most::default();
            for column in 0..width {
                let down: Vec<u8> = (0..rows).map(|row| live[row * width + column]).collect();
                expected.add(&simple(&down));
            }
            let mut most = Most::default();
            most.columns(&mut live.clone(), width);
            assert_eq!(most, expected, "{rows} x {width}");
        }
    }

    #[test]
    fn a_row_without_zeros_leaves_no_pattern() {
        let mut most = Most::default();
        most.row(&[1; 31]);
        assert!(!most.is_full());
        most.row(&[1; 32]);
        assert!(most.is_full());
    }
}
