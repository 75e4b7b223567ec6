//! A part of a run: the K-th of N shares of the shards.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

/// The K-th of N parts of a run, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: usize,
    of: usize,
}

/// The most parts that a run can be cut into.
const MOST: usize = 1 << 20;

impl Part {
    /// The part of this number; none if it is not from 1 to `of`.
    #[must_use]
    pub const fn new(number: usize, of: usize) -> Option<Self> {
        if number >= 1 && number <= of && of <= MOST {
            Some(Self { number, of })
        } else {
            None
        }
    }

    /// Which one it is, from 1.
    #[must_use]
    pub const fn number(self) -> usize {
        self.number
    }

    /// Of how many.
    #[must_use]
    pub const fn of(self) -> usize {
        self.of
    }

    /// The shards of this part, in their order, where `bytes` are the lengths of all shards.
    ///
    /// The shards are dealt out from the longest to the shortest, each to the part that has the fewest bytes so far; among
    /// equals, to the first. It depends on the lengths alone, so that every machine deals alike.
    #[must_use]
    pub fn shards(self, bytes: &[u64]) -> Vec<usize> {
        let mut by_length: Vec<usize> = (0..bytes.len()).collect();
        // A stable sort: among equals, the first stays first.
        by_length.sort_by_key(|&shard| Reverse(bytes[shard]));
        let mut given = vec![(0_u64, 0_usize); self.of];
        let mut own = Vec::new();
        for shard in by_length {
            // The number of shards decides between parts that have no bytes yet.
            let least = (0..self.of).min_by_key(|&part| (given[part], part));
            let Some(least) = least else { continue };
            given[least].0 = given[least].0.saturating_add(bytes[shard]);
            given[least].1 += 1;
            if least + 1 == self.number {
                own.push(shard);
            }
        }
        own.sort_unstable();
        own
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// A part that is not written K/N, with 1 <= K <= N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use K/N with 1 <= K <= N, for example 1/4 for the first of four parts")]
pub struct NoPart;

impl FromStr for Part {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        let (number, of) = text.split_once('/').ok_or(NoPart)?;
        let (Ok(number), Ok(of)) = (number.parse(), of.parse()) else {
            return Err(NoPart);
        };
        Self::new(number, of).ok_or(NoPart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(of: usize, bytes: &[u64]) -> Vec<Vec<usize>> {
        (1..=of)
            .map(|number| Part::new(number, of).unwrap().shards(bytes))
            .collect()
    }

    #[test]
    fn every_shard_is_in_one_part_and_no_part_is_empty() {
        let bytes: Vec<u64> = (0..191).map(|i| 4_000 + i * 7919 % 977).collect();
        for of in 1..=191 {
            let parts = all(of, &bytes);
            assert!(parts.iter().all(|part| !part.is_empty()), "{of}");
            let mut shards = parts.concat();
            shards.sort_unstable();
            assert_eq!(shards, (0..191).collect::<Vec<_>>(), "{of}");
        }
    }

    #[test]
    fn parts_have_about_the_same_bytes() {
        let bytes: Vec<u64> = (0..191).map(|i| 4_000 + i * 7919 % 977).collect();
        for of in [2, 3, 16, 64] {
            let sum = |shards: &Vec<usize>| shards.iter().map(|&shard| bytes[shard]).sum::<u64>();
            let sums: Vec<u64> = all(of, &bytes).iter().map(sum).collect();
            let spread = sums.iter().max().unwrap() - sums.iter().min().unwrap();
            // No two differ by more than one shard.
            assert!(spread <= 4_977, "{of}: {sums:?}");
        }
        assert_eq!(all(2, &[10, 1, 1, 1, 7]), [vec![0], vec![1, 2, 3, 4]]);
        assert_eq!(all(2, &[0, 0, 0]), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn a_part_is_written_k_of_n() {
        assert_eq!("2/4".parse(), Ok(Part::new(2, 4).unwrap()));
        assert_eq!(Part::new(2, 4).unwrap().to_string(), "2/4");
        for wrong in [
            "",
            "2",
            "0/4",
            "5/4",
            "1/0",
            "-1/2",
            "1/2/3",
            "a/b",
            "1/9999999999",
        ] {
            assert_eq!(wrong.parse::<Part>(), Err(NoPart), "{wrong}");
        }
    }
}
