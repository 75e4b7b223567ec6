//! `bench`: measures devices, shows and writes the records, or puts two of them side by side.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use swiftprune_wgpu::bench::compare::compare;
use swiftprune_wgpu::bench::{BenchOptions, Measurement, Record, Records, run as measure};
use swiftprune_wgpu::device::{Device, DeviceChoice, devices};
use swiftprune_wgpu::untrusted::{self, shown, shown_path};

use super::args::Bench;
use super::output;
use super::records::{heading, markdown, submit_text, table, time};
use super::terminal::Terminal;

/// The largest file of records that is read.
const MOST_BYTES: u64 = 16 << 20;

pub(super) fn run(args: &Bench, terminal: Terminal) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if let [first, second] = &args.compare[..] {
        let text = comparison(&read(first)?, &read(second)?)?;
        stdout.write_all(text.as_bytes())?;
        return Ok(());
    }
    let records = match &args.read[..] {
        [] => measured(args, terminal)?,
        files => {
            let mut records = Vec::new();
            for file in files {
                records.extend(read(file)?);
            }
            records
        }
    };
    if args.json {
        stdout.write_all(untrusted::json(&Records::new(records))?.as_bytes())?;
    } else if args.markdown {
        stdout.write_all(markdown(&records).as_bytes())?;
    } else {
        let text = if args.submit_text { submit_text } else { table };
        let texts: Vec<String> = records.iter().map(text).collect();
        stdout.write_all(texts.join("\n").as_bytes())?;
    }
    Ok(())
}

/// A record of every device that was asked for.
fn measured(args: &Bench, terminal: Terminal) -> anyhow::Result<Vec<Record>> {
    let dir = (!args.no_files).then(|| args.dir.clone().unwrap_or_else(std::env::temp_dir));
    let mut options = BenchOptions::new(dir);
    options.quick = args.quick;
    options.samples = usize::from(args.samples);
    options.dtypes.clone_from(&args.dtype);

    let mut records = Vec::new();
    for device in opened(args)? {
        terminal.say(format_args!("{}", device.info()));
        records.push(measure(&device, &options, &|what| {
            terminal.say(format_args!("  {what}"))
        })?);
    }
    Ok(records)
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
    let records = Records::read(std::io::BufReader::new(file))
        .with_context(|| format!("cannot use {}", shown_path(path)))?;
    Ok(records.records)
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
