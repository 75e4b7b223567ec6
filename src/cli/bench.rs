//! `bench`: measures devices, shows and writes the records, or puts two of them side by side.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use swiftprune_wgpu::bench::compare::compare;
use swiftprune_wgpu::bench::{BenchOptions, Measurement, Record, run as measure};
use swiftprune_wgpu::device::{Device, DeviceChoice, devices};
use swiftprune_wgpu::untrusted::{escaped, shown, shown_path};

use super::args::Bench;
use super::output;
use super::terminal::Terminal;

/// A file of records.
#[derive(Serialize, Deserialize)]
struct Records {
    records: Vec<Record>,
}

/// The largest file of records that is read.
const MOST_BYTES: u64 = 64 << 20;

pub(super) fn run(args: &Bench, terminal: Terminal) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if let [first, second] = &args.compare[..] {
        let text = comparison(&read(first)?, &read(second)?)?;
        stdout.write_all(text.as_bytes())?;
        return Ok(());
    }
    let dir = (!args.no_files).then(|| args.dir.clone().unwrap_or_else(std::env::temp_dir));
    let mut options = BenchOptions::new(dir);
    options.quick = args.quick;
    options.samples = usize::from(args.samples);
    options.dtypes.clone_from(&args.dtype);

    let mut records = Vec::new();
    for device in opened(args)? {
        terminal.say(format_args!("{}", device.info()));
        let record = measure(&device, &options, &|what| {
            terminal.say(format_args!("  {what}"))
        })?;
        if args.json {
            // All of them together, at the end.
        } else if args.markdown {
            stdout.write_all(markdown(&record).as_bytes())?;
        } else {
            stdout.write_all(table(&record).as_bytes())?;
        }
        stdout.flush()?;
        records.push(record);
    }
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &Records { records })?;
        writeln!(stdout)?;
    }
    Ok(())
}

/// The devices to measure: one, or with `all` the CPU and every adapter.
fn opened(args: &Bench) -> anyhow::Result<Vec<Device>> {
    let threads = args.on.threads.map(usize::from);
    let choices = match &args.on.device {
        DeviceChoice::Name(name) if name == "all" => {
            let indices = devices().into_iter().filter_map(|info| info.index);
            let adapters = indices.map(DeviceChoice::Index);
            std::iter::once(DeviceChoice::Cpu).chain(adapters).collect()
        }
        one => vec![one.clone()],
    };
    choices
        .iter()
        .map(|choice| Ok(Device::open(choice)?.with_threads(threads)))
        .collect()
}

fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", shown_path(path)))?;
    if file.metadata()?.len() > MOST_BYTES {
        bail!(
            "{} is too large for a file of bench records",
            shown_path(path)
        );
    }
    let records: Records =
        serde_json::from_reader(std::io::BufReader::new(file)).with_context(|| {
            format!(
                "{} contains no bench records (`bench --json` writes them)",
                shown_path(path)
            )
        })?;
    Ok(records.records)
}

/// Which device, then where and when, on a line of their own: what every record's heading says.
fn heading(record: &Record) -> String {
    let Record {
        device, machine, ..
    } = record;
    let device = format!(
        "{} ({}, {}; {})",
        device.name, device.backend, device.kind, device.driver
    );
    let machine = format!(
        "   {} cores of {}, {}, swiftprune-wgpu {}, {}",
        machine.cores, machine.cpu, machine.os, record.version, record.date
    );
    [device, machine]
        .map(|line| escaped(&line).to_string())
        .join("\n")
}

/// The cells of one case: what, time, spread, GB/s, weights/s or tokens/s, share of the copy.
fn cells(record: &Record, case: &Measurement) -> [String; 6] {
    let summary = case.summary();
    let spread = summary.as_ref().map_or_else(String::new, |s| {
        let spread = 100.0 * (s.upper_quartile - s.lower_quartile) / s.median;
        let outliers: Vec<String> = s
            .outliers
            .iter()
            .map(|outlier| format!("{:.1}x", outlier / s.median))
            .collect();
        match outliers.is_empty() {
            true => format!("{spread:.0} %"),
            false => format!("{spread:.0} %, also {}", outliers.join(" ")),
        }
    });
    let rate = |amount| case.rate(amount);
    let bytes = rate(case.bytes);
    let of_copy = match (bytes, record.copy_rate(&case.of)) {
        (Some(rate), Some(copy)) if case.what != "copy" => format!("{:.0} %", 100.0 * rate / copy),
        _ => String::new(),
    };
    let amount = match (rate(case.tokens), rate(case.weights)) {
        (Some(tokens), _) => format!("{tokens:.0} tokens/s"),
        (None, Some(weights)) => format!("{:.2} G/s", weights / 1e9),
        (None, None) => String::new(),
    };
    let bytes = match (bytes, rate(case.operations)) {
        (Some(bytes), _) => format!("{:.2} GB/s", bytes / 1e9),
        (None, Some(operations)) => format!("{:.3} TFLOP/s", operations / 1e12),
        (None, None) => String::new(),
    };
    [
        shown(&case.what).to_string(),
        summary.map_or_else(String::new, |s| time(s.median)),
        spread,
        bytes,
        amount,
        of_copy,
    ]
}

const HEAD: [&str; 6] = ["CASE", "MEDIAN", "SPREAD", "RATE", "WEIGHTS", "VS COPY"];

/// For a terminal: a table for each matrix.
fn table(record: &Record) -> String {
    let mut text = format!("{}\n", heading(record));
    for of in groups(record) {
        text += &format!("\n{}\n", shown(of));
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        let cases = record.cases.iter().filter(|case| case.of == of);
        rows.extend(cases.map(|case| cells(record, case).to_vec()));
        text += &output::table(&rows, &[1, 3, 4, 5]);
    }
    for what in &record.left_out {
        text += &format!("left out: {}\n", shown(what));
    }
    text
}

/// For a document: one table, whose lines say of what they are.
fn markdown(record: &Record) -> String {
    let escape = |text: &str| text.replace('|', "\\|");
    let mut text = format!("{}\n\n", escape(&heading(record)));
    text += "| of | what | median | spread | bytes | weights | of copy |\n|---|---|---|---|---|---|---|\n";
    for case in &record.cases {
        let cells = cells(record, case).map(|cell| escape(&cell));
        text += &format!(
            "| {} | {} |\n",
            escape(&shown(&case.of).to_string()),
            cells.join(" | ")
        );
    }
    for what in &record.left_out {
        text += &format!("\nLeft out: {}\n", escape(&shown(what).to_string()));
    }
    text
}

/// What the cases are of, in their order.
fn groups(record: &Record) -> Vec<&str> {
    let mut groups: Vec<&str> = record.cases.iter().map(|case| case.of.as_str()).collect();
    groups.dedup();
    groups
}

/// Every device of the first file beside those of the second that it can be compared with.
fn comparison(first: &[Record], second: &[Record]) -> anyhow::Result<String> {
    let mut text = String::new();
    for a in first {
        // The same device again, else every other one.
        let same: Vec<&Record> = second
            .iter()
            .filter(|b| b.device.name == a.device.name && b.device.backend == a.device.backend)
            .collect();
        let others = if same.is_empty() {
            second.iter().collect()
        } else {
            same
        };
        for b in others {
            let pairs = compare(a, b);
            if pairs.is_empty() {
                continue;
            }
            text += &format!("A  {}\nB  {}\n", heading(a), heading(b));
            let mut rows = vec![
                ["OF", "WHAT", "A", "B", "B IS FASTER BY", "95 %"]
                    .map(str::to_owned)
                    .to_vec(),
            ];
            for pair in pairs {
                let [low, speed, high] = pair.speed;
                let median = |case: &Measurement| {
                    case.summary().map_or_else(String::new, |s| time(s.median))
                };
                rows.push(vec![
                    shown(&pair.first.of).to_string(),
                    shown(&pair.first.what).to_string(),
                    median(pair.first),
                    median(pair.second),
                    format!("{speed:.2} x"),
                    format!("{low:.2} to {high:.2}"),
                ]);
            }
            text += &output::table(&rows, &[2, 3, 4]);
            text.push('\n');
        }
    }
    if text.is_empty() {
        bail!("the two files have no case in common");
    }
    Ok(text)
}

/// A time with three digits.
fn time(seconds: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")];
    let (unit, name) = units
        .into_iter()
        .find(|&(unit, _)| seconds >= unit)
        .unwrap_or((1e-9, "ns"));
    let value = seconds / unit;
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {name}")
}
