//! Heat maps: a row for each decoder block, a column for each kind of layer. They are tables, so that they are read out and
//! copied as what they are.

use super::chart::share;
use super::data::{Run, RunTensor};
use super::html::{escape, percent, scroll};

/// The most blocks that are shown.
const MOST_BLOCKS: usize = 256;

/// The most kinds of layers that are shown: no model has as many.
const MOST_KINDS: usize = 64;

/// Blocks and kinds of a run, with the tensors of each cell.
pub(super) struct Cells<'a> {
    blocks: Vec<&'a str>,
    kinds: Vec<&'a str>,
    /// By block, then by kind.
    tensors: Vec<Vec<Vec<&'a RunTensor>>>,
    left_out: usize,
    kinds_left_out: bool,
}

impl<'a> Cells<'a> {
    pub(super) fn of(run: &'a Run) -> Self {
        let mut cells = Self {
            blocks: Vec::new(),
            kinds: Vec::new(),
            tensors: Vec::new(),
            left_out: 0,
            kinds_left_out: false,
        };
        let mut block_of = std::collections::HashMap::new();
        for tensor in run
            .tensors
            .iter()
            .filter(|tensor| tensor.copied_because.is_none())
        {
            let block = tensor.block.as_deref().unwrap_or("elsewhere");
            let kind = match cells.kinds.iter().position(|kind| *kind == tensor.kind) {
                Some(kind) => kind,
                None if cells.kinds.len() == MOST_KINDS => {
                    cells.kinds_left_out = true;
                    continue;
                }
                None => {
                    cells.kinds.push(&tensor.kind);
                    cells.kinds.len() - 1
                }
            };
            let block = *block_of.entry(block).or_insert_with(|| {
                cells.blocks.push(block);
                cells.tensors.push(Vec::new());
                cells.blocks.len() - 1
            });
            let row = &mut cells.tensors[block];
            row.resize(row.len().max(kind + 1), Vec::new());
            row[kind].push(tensor);
        }
        // Shards list tensors in the order of their names, in which 10 comes before 2.
        let mut order: Vec<usize> = (0..cells.blocks.len()).collect();
        order.sort_by_cached_key(|&block| natural(cells.blocks[block]));
        cells.left_out = order.len().saturating_sub(MOST_BLOCKS);
        order.truncate(MOST_BLOCKS);
        cells.blocks = order.iter().map(|&block| cells.blocks[block]).collect();
        cells.tensors = (order.iter())
            .map(|&block| std::mem::take(&mut cells.tensors[block]))
            .collect();
        cells
    }

    /// The table; `of` gives a cell's text and how dark it is, from 0 to 1.
    pub(super) fn table(
        &self,
        label: &str,
        of: impl Fn(&[&RunTensor]) -> Option<(String, f64)>,
    ) -> Option<String> {
        let mut any = false;
        let mut rows = String::new();
        for (block, tensors) in self.blocks.iter().zip(&self.tensors) {
            rows += &format!("<tr><th scope=\"row\">{}</th>", escape(self.short(block)));
            for kind in 0..self.kinds.len() {
                let cell = tensors.get(kind).filter(|tensors| !tensors.is_empty());
                match cell.and_then(|tensors| of(tensors)) {
                    Some((text, heat)) => {
                        any = true;
                        rows += &format!("<td style=\"--v:{:.2}\">{text}</td>", share(heat));
                    }
                    None => rows += "<td class=\"none\">-</td>",
                }
            }
            rows += "</tr>\n";
        }
        if !any {
            return None;
        }
        let heads: String = (self.kinds.iter())
            .map(|kind| format!("<th scope=\"col\">{}</th>", escape(kind)))
            .collect();
        let mut more = match self.left_out {
            0 => String::new(),
            n => format!("<p>{n} more blocks are in the JSON.</p>"),
        };
        if self.kinds_left_out {
            more += "<p>More kinds of layers are in the JSON.</p>";
        }
        let table = format!(
            "<table class=\"heat\"><thead><tr><th scope=\"col\">block</th>{heads}</tr></thead><tbody>\n{rows}</tbody></table>"
        );
        Some(scroll(label, &table) + &more)
    }

    /// The number of a block, where all are of one stack.
    fn short(&self, block: &'a str) -> &'a str {
        let stack = |name: &'a str| name.rsplit_once('.').map(|(stack, _)| stack);
        let first = self.blocks.iter().find_map(|block| stack(block));
        let is_alone = self
            .blocks
            .iter()
            .all(|block| stack(block).is_none_or(|s| Some(s) == first));
        match block.rsplit_once('.') {
            Some((_, number)) if is_alone => number,
            _ => block,
        }
    }
}

/// A name by which 2 comes before 10.
fn natural(name: &str) -> (String, u64) {
    match name.rsplit_once('.') {
        Some((stack, number)) => (stack.to_owned(), number.parse().unwrap_or(u64::MAX)),
        None => (name.to_owned(), u64::MAX),
    }
}

/// The mean of a number over some tensors, by their weights; none where one of them has none.
pub(super) fn mean(tensors: &[&RunTensor], of: impl Fn(&RunTensor) -> Option<f64>) -> Option<f64> {
    let (mut sum, mut weights) = (0.0, 0.0);
    for tensor in tensors {
        let weight = tensor.totals.weights.max(1) as f64;
        sum += of(tensor)? * weight;
        weights += weight;
    }
    Some(sum / weights)
}

/// Asked against achieved.
pub(super) fn sparsity(run: &Run) -> Option<String> {
    Cells::of(run).table("Zeros by block and kind of layer", |tensors| {
        let reached = mean(tensors, |tensor| Some(tensor.totals.sparsity))?;
        let asked = mean(tensors, |tensor| tensor.totals.asked);
        // A row has whole weights, which is not what is meant by another number.
        let other = asked.filter(|asked| (asked - reached).abs() > 0.0005);
        let below = other.map_or_else(String::new, |asked| {
            format!("<small>asked {}</small>", percent(asked))
        });
        Some((format!("{}{below}", percent(reached)), reached))
    })
}
