//! A report as a page to look at: one HTML file that loads nothing, with pictures in SVG and tables.
//!
//! A page is drawn from the JSON of reports and from nothing else, so that both say the same, whether the page is written at the
//! end of a run or made later of one file or several. Every section has one sentence that says what to see. Names come from a
//! checkpoint or from a stranger's file: all text is escaped on its way into the page (`html.rs`), and the page forbids itself
//! scripts and every address.
//!
//! Templates are plain functions, and the charts a few hundred lines of SVG: a library for charts would bring fonts, bitmaps and
//! colours that do not follow the reader's light or dark theme.

mod chart;
mod comparison;
mod data;
mod errors;
mod heat_map;
mod histogram;
mod html;
mod norms;
mod rows;
mod settings;
mod sweeps;
mod tensors;
mod time;

pub use data::{Document, PageError, Run, parse};

use super::sweep::SweepReport;
use html::{escape, figure, section};

/// The page of some runs, side by side, and of some sweeps.
#[must_use]
pub fn page(runs: &[Run], sweeps: &[SweepReport]) -> String {
    let title = match (runs, sweeps) {
        ([run], []) => format!("{}, pruned", settings::short_name(&run.input)),
        ([], [sweep]) => format!("{}: ways to prune", settings::short_name(&sweep.model)),
        _ => format!("{} runs side by side", runs.len() + sweeps.len()),
    };
    let mut body = String::new();
    if runs.len() > 1 {
        body += &section(
            "Side by side",
            "Each column is one run, and each row what it did differently.",
            &comparison::table(runs),
        );
    }
    if !runs.is_empty() {
        body += &settings::section(runs);
    }
    for sweep in sweeps {
        body += &sweeps::section(sweep);
    }
    // A picture that no run has data for is left out.
    let mut picture = |title: &str, see: &str, draw: &dyn Fn(&Run) -> Option<String>| {
        let figures: Vec<String> = (runs.iter().enumerate())
            .filter_map(|(index, run)| {
                let name = (runs.len() > 1).then(|| settings::caption(index, run));
                Some(figure(name.as_deref(), &draw(run)?))
            })
            .collect();
        if !figures.is_empty() {
            let inner = format!("<div class=\"side\">{}</div>", figures.concat());
            body += &section(title, see, &inner);
        }
    };
    picture(
        "Where the zeros are",
        "Each cell is one kind of layer in one decoder block, and its number the share of weights that are zero now, in percent; \
         where something else was asked for, that stands below it.",
        &heat_map::sparsity,
    );
    picture(
        "What the weights lost",
        "The squared size of what changed, in percent of that of all weights: low, as it is the small weights that go.",
        &errors::squared,
    );
    picture(
        "What the layers' outputs lose",
        "The same as the next layer sees it, predicted from how large each input is: the strongest colours are the layers that pruning hurts most.",
        &errors::output,
    );
    picture(
        "What compensation got back",
        "The weights that stay were compensated for those that went; the number says which percentage of the output's error that took \
         away again.",
        &errors::got_back,
    );
    picture(
        "How weights are chosen",
        "Each dot is one weight of a row, the higher the more important; those below the dashed line, which follows what is usual at \
         their place, became zero.",
        &rows::rows,
    );
    picture(
        "How scores are spread",
        "All weights of some rows by how far their score is from what is usual at their place: what lies left of lambda became zero.",
        &histogram::histogram,
    );
    picture(
        "Which inputs stand out",
        "The largest feature of each input, in multiples of a usual one: weights that read such a feature matter more than their size \
         tells.",
        &norms::norms,
    );
    picture(
        "Where the time went",
        "Each bar is one part of the run, beside what a plain copy of the file takes here.",
        &time::time,
    );
    picture(
        "What to know",
        "The program warned of this while it ran.",
        &settings::warnings,
    );
    picture(
        "Every tensor",
        "The numbers behind the pictures.",
        &tensors::table,
    );
    document(&title, &body)
}

fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    let style = include_str!("style.css");
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n</header>\n\
         <main>\n{body}</main>\n<footer><p>Made by swiftprune-wgpu {version}. This page loads nothing from anywhere.</p></footer>\n\
         </body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests;
