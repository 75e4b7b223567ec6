//! Pass 5, N:M: of every M consecutive columns the N largest order keys stay. No threshold, no EWMA.
//!
//! "2:4" is *kept*:*group*, as NVIDIA writes it; some tools count the zeros instead.

use super::keys::NON_FINITE;
use super::params::entry_point;
use crate::selection::Pattern;
use crate::shader::{EntryPoint, Shader, shader};

/// The pass by itself.
pub(crate) static ALONE: Shader = shader! {
    name: "n_of_m",
    summary: "mask that keeps the N largest keys of every M columns",
    files: ["shared/params", "passes/n_of_m", "entry/alone/n_of_m"],
    entry_points: [N_OF_M],
};

pub(crate) static N_OF_M: EntryPoint = entry_point!("n_of_m", 64, [Params, Result, OrderKeys]);

/// Sets `pruned[j]` to whether weight `j` of the row goes; the slices are equally long. `is_live` says that all keys are
/// known to be live.
#[inline(always)]
pub(crate) fn row(order_keys: &[u32], is_live: bool, pattern: Pattern, pruned: &mut [bool]) {
    // Sizes that hardware knows, for the compiler to unroll.
    match pattern.m() {
        2 => fixed_groups::<2>(order_keys, is_live, pattern, pruned),
        4 => fixed_groups::<4>(order_keys, is_live, pattern, pruned),
        8 => fixed_groups::<8>(order_keys, is_live, pattern, pruned),
        _ => any_groups(order_keys, pattern, pruned),
    }
}

#[inline(always)]
fn fixed_groups<const M: usize>(
    keys: &[u32],
    is_live: bool,
    pattern: Pattern,
    pruned: &mut [bool],
) {
    let (groups, tail) = keys.as_chunks::<M>();
    let (pruned_groups, pruned_tail) = pruned.as_chunks_mut::<M>();
    if is_live {
        for (keys, pruned) in groups.iter().zip(pruned_groups) {
            *pruned = ahead(keys).map(|ahead| ahead >= pattern.n());
        }
    } else {
        for (keys, pruned) in groups.iter().zip(pruned_groups) {
            let ahead = ahead(keys);
            for (j, pruned) in pruned.iter_mut().enumerate() {
                *pruned = goes(keys[j], ahead[j], pattern.n());
            }
        }
    }
    any_groups(tail, pattern, pruned_tail);
}

/// How many keys of the group are ahead of each. Every pair is compared once: either the right one is ahead, or the left.
#[inline(always)]
fn ahead<const M: usize>(keys: &[u32; M]) -> [u32; M] {
    let mut ahead = [0; M];
    for left in 0..M {
        for right in left + 1..M {
            let right_leads = u32::from(keys[right] as i32 > keys[left] as i32);
            ahead[left] += right_leads;
            ahead[right] += 1 - right_leads;
        }
    }
    ahead
}

#[inline(always)]
fn any_groups(keys: &[u32], pattern: Pattern, pruned: &mut [bool]) {
    let m = pattern.m() as usize;
    for (keys, pruned) in keys.chunks(m).zip(pruned.chunks_mut(m)) {
        for (j, pruned) in pruned.iter_mut().enumerate() {
            let mut ahead = 0;
            for (i, &other) in keys.iter().enumerate() {
                let leads = if i < j {
                    other >= keys[j]
                } else {
                    other > keys[j]
                };
                ahead += u32::from(leads);
            }
            *pruned = goes(keys[j], ahead, pattern.n());
        }
    }
}

/// Whether a weight goes: at least `n` of its group are ahead of it (larger, or equal and to its left), or it is zero
/// anyway. A non-finite weight stays whatever is ahead.
#[inline(always)]
fn goes(key: u32, ahead: u32, n: u32) -> bool {
    (ahead >= n || key == 0) & (key != NON_FINITE)
}

#[cfg(test)]
mod tests {
    use super::super::keys::SMALLEST_LIVE;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_keep_the_lower_column() {
        let mut pruned = [false; 4];
        row(
            &[7 << 23; 4],
            true,
            Pattern::new(2, 4).unwrap(),
            &mut pruned,
        );
        assert_eq!(pruned, [false, false, true, true]);
    }

    #[test]
    fn a_tail_group_keeps_up_to_n() {
        let mut pruned = [false; 7];
        row(
            &[5 << 23; 7],
            true,
            Pattern::new(2, 4).unwrap(),
            &mut pruned,
        );
        assert_eq!(pruned, [false, false, true, true, false, false, true]);
    }

    proptest! {
           #[test]
           fn unrolled_patterns_are_the_general_one(
               keys in prop::collection::vec(
                   prop_oneof![SMALLEST_LIVE..SMALLEST_LIVE + 3, SMALLEST_LIVE..NON_FINITE], 0..100
               ),
               odd in prop::collection::vec((any::<usize>(), prop_oneof![0..2_u32, Just(NON_FINITE)]), 0..3),
           )
    {
               let mut keys = keys;
               for (at, key) in odd {
                   if let Some(at) = at.checked_rem(keys.len()) {
                       keys[at] = key;
                   }
               }
               for (n, m) in [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (7, 8)] {
                   let pattern = Pattern::new(n, m).unwrap();
                   let (mut fast, mut plain) = (vec![false; keys.len()], vec![true; keys.len()]);
                   let live = |&key: &u32| (SMALLEST_LIVE..NON_FINITE).contains(&key);
                   for is_live in [false, keys.iter().all(live)] {
                       row(&keys, is_live, pattern, &mut fast);
                       any_groups(&keys, pattern, &mut plain);
                       prop_assert_eq!(&fast, &plain);
                   }
               }
           }
       }
}
