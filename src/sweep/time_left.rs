//! How long the cells that are missing will take, by how long others took.

use std::time::Duration;

use crate::plan::Options;

/// Seconds and cells, without compensation and with: a cell with it takes several times as long.
#[derive(Debug, Default)]
pub(super) struct TimeLeft([(f64, u32); 2]);

impl TimeLeft {
    /// One cell took so long.
    pub(super) fn took(&mut self, cell: &Options, elapsed: Duration) {
        let (seconds, cells) = &mut self.0[kind(cell)];
        *seconds += elapsed.as_secs_f64();
        *cells += 1;
    }

    /// What these cells will take, by the mean of their kind, or of all where there was none; `None` before the first.
    pub(super) fn of<'a>(&self, cells: impl Iterator<Item = &'a Options>) -> Option<Duration> {
        let mean = |(seconds, cells): (f64, u32)| (cells > 0).then(|| seconds / f64::from(cells));
        let [without, with] = self.0;
        let all = mean((without.0 + with.0, without.1 + with.1))?;
        let of_cell = |cell| mean(self.0[kind(cell)]).unwrap_or(all);
        Some(Duration::from_secs_f64(cells.map(of_cell).sum()))
    }
}

fn kind(cell: &Options) -> usize {
    usize::from(cell.compensation.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Compensation, Selection};

    #[test]
    fn a_cell_takes_what_others_of_its_kind_took() {
        let plain = Options::new(Selection::Exact { sparsity: 0.5 });
        let mut compensated = plain.clone();
        compensated.compensation = Some(Compensation::new(&compensated.selection));
        let mut left = TimeLeft::default();
        assert_eq!(left.of([&plain].into_iter()), None);
        left.took(&plain, Duration::from_secs(1));
        left.took(&plain, Duration::from_secs(3));
        let seconds = |left: &TimeLeft| {
            left.of([&plain, &compensated].into_iter())
                .unwrap()
                .as_secs()
        };
        assert_eq!(seconds(&left), 4, "of the other kind nothing is known");
        left.took(&compensated, Duration::from_secs(10));
        assert_eq!(seconds(&left), 12);
    }
}
