//! Files that somebody made to do harm: no panic, no hang, no more memory than a bound, nothing read outside of the model.
//!
//! The corpora of `fuzz/` are replayed with mutations from a seed, through the same functions that the fuzz targets call;
//! [`VARIABLE`] asks for more. Then come the cases that have a name.

#[path = "../fuzz/entry.rs"]
mod entry;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parking_lot::Mutex;

use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use swiftprune_wgpu::checkpoint::Checkpoint;
use swiftprune_wgpu::internals::Random;
use swiftprune_wgpu::plan::{Draft, NormsSource, Options, Selection};
use swiftprune_wgpu::untrusted::shown;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Mutations of each file of a corpus.
const VARIABLE: &str = "SWIFTPRUNE_MUTATIONS";
const MUTATIONS: usize = 60;

/// How long one input may take.
const LONGEST: Duration = Duration::from_secs(5);

/// The same for a header of a million tensors, which is 80 MB: in a build that is not optimised, on a busy machine.
const LONGEST_OF_A_MILLION: Duration = Duration::from_secs(20);

/// How much memory one input may take: so much, and so many times its length.
const MEMORY_BASE: usize = 64 << 20;
const MEMORY_FACTOR: usize = 32;

/// What was seen of some inputs.
#[derive(Debug, Default)]
struct Worst {
    inputs: usize,
    longest: Duration,
    memory: usize,
}

/// Does something with an input of `len` bytes and holds it to its bounds. One at a time, as memory is counted for all.
fn bounded<T>(what: &str, len: usize, worst: &mut Worst, work: impl FnOnce() -> T) -> T {
    bounded_by(LONGEST, what, len, worst, work)
}

fn bounded_by<T>(
    longest: Duration,
    what: &str,
    len: usize,
    worst: &mut Worst,
    work: impl FnOnce() -> T,
) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = Instant::now();
    let done = catch_unwind(AssertUnwindSafe(work));
    let (took, took_memory) = (start.elapsed(), MEMORY.peak_usage().saturating_sub(before));
    let Ok(done) = done else {
        panic!("{what}: a panic");
    };
    assert!(took <= longest, "{what}: {took:?}");
    let bound = MEMORY_BASE + MEMORY_FACTOR * len;
    assert!(
        took_memory <= bound,
        "{what}: {took_memory} bytes of memory, {bound} are allowed"
    );
    worst.inputs += 1;
    worst.longest = worst.longest.max(took);
    worst.memory = worst.memory.max(took_memory);
    done
}

/// What the tokenizers library panics with is turned into an error; it need not be printed a thousand times.
fn hide_panics_of_the_tokenizer() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let name = std::thread::current().name().map(str::to_owned);
        if name.as_deref() != Some(swiftprune_wgpu::calibration::TOKENIZER_THREAD) {
            print(panic);
        }
    }));
}

#[test]
fn the_corpora_and_their_mutations_keep_to_the_bounds() {
    hide_panics_of_the_tokenizer();
    let mutations = std::env::var(VARIABLE).map_or(MUTATIONS, |count| count.parse().unwrap());
    for (target, run) in entry::TARGETS {
        let mut worst = Worst::default();
        let dir = entry::root().join("fuzz/corpus").join(target);
        let mut files: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            let original = fs::read(&file).unwrap();
            bounded(
                &file.display().to_string(),
                original.len(),
                &mut worst,
                || run(&original),
            );
            for seed in 0..mutations {
                let bytes = mutated(&original, seed as u64);
                let what = format!("{}, mutation {seed}", file.display());
                bounded(&what, bytes.len(), &mut worst, || run(&bytes));
            }
        }
        println!("{target}: {worst:?}");
    }
}

/// One to four changes: flipped bits, cuts, repetitions, and numbers and brackets that a reader may trip over.
fn mutated(original: &[u8], seed: u64) -> Vec<u8> {
    const WORDS: [&[u8]; 14] = [
        b"18446744073709551615",
        b"18446744073709551616",
        b"-1",
        b"1e999",
        b"NaN",
        b"4294967296",
        b"null",
        b"[[[[[[[[",
        b"{\"a\":",
        b"\"\\ud800\"",
        b"../../",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x1b[2J",
    ];
    let mut random = Random::new(seed ^ original.len() as u64);
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        let count = random.below(16) + 1;
        let end = bytes.len().min(at + count);
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at.min(end)..end].repeat(random.below(8) + 1);
                bytes.splice(at..at, part);
            }
            // A number, or what is between two quotation marks, becomes another.
            4 => {
                let digits = |byte: &u8| byte.is_ascii_digit();
                let first = bytes
                    .iter()
                    .skip(at)
                    .position(digits)
                    .map_or(at, |i| at + i);
                let rest = bytes.iter().skip(first);
                let last = first + rest.take_while(|byte| digits(byte)).count();
                bytes.splice(
                    first..last,
                    WORDS[random.below(WORDS.len())].iter().copied(),
                );
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())].iter().copied();
                bytes.splice(at..end, word);
            }
        }
    }
    bytes
}

#[test]
fn the_bounds_are_held() {
    let hog = || vec![1_u8; MEMORY_BASE + (1 << 20)].len();
    let too_much = catch_unwind(|| bounded("a hog", 0, &mut Worst::default(), hog));
    assert!(too_much.is_err());
    let panic = || panic!("of the input");
    assert!(catch_unwind(|| bounded("a panic", 0, &mut Worst::default(), panic)).is_err());
    let slow = || std::thread::sleep(LONGEST + Duration::from_millis(1));
    assert!(catch_unwind(|| bounded("a hang", 0, &mut Worst::default(), slow)).is_err());
}

// --- Cases with a name. Those of a header's form are in `src/checkpoint/header/tests.rs`, those of an index in
// `src/checkpoint/index.rs`, of GGUF in `src/norms/gguf/tests.rs`.

/// A file of this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// What opening a model directory of these files says; `Ok` if it can be planned.
fn open(files: &[(&str, &[u8])]) -> Result<Draft, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut len = 0;
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
        len += bytes.len();
    }
    let path = dir.path().to_str().unwrap().to_owned();
    let longest = match len {
        ..50_000_000 => LONGEST,
        _ => LONGEST_OF_A_MILLION,
    };
    bounded_by(longest, files[0].0, len, &mut Worst::default(), || {
        let checkpoint = Checkpoint::open(&path).map_err(|error| error.to_string())?;
        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        Draft::new(checkpoint, options, NormsSource::None).map_err(|error| error.to_string())
    })
}

const EXAMPLE_CONFIG: &str = include_str!("../examples/tiny-llama/config.json");

#[test]
fn numbers_beyond_what_a_file_can_have_are_refused() {
    for entry in [
        r#""shape":[2],"data_offsets":[0,18446744073709551616]"#,
        r#""shape":[2],"data_offsets":[18446744073709551612,18446744073709551614]"#,
        r#""shape":[2],"data_offsets":[0,1e30]"#,
        r#""shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]"#,
        r#""shape":[9223372036854775807,4],"data_offsets":[0,4]"#,
        r#""shape":[-2],"data_offsets":[0,4]"#,
    ] {
        let header = format!(r#"{{"a.weight":{{"dtype":"BF16",{entry}}}}}"#);
        let opened = open(&[("model.safetensors", &file(&header, 4))]);
        assert!(opened.is_err(), "{entry}");
    }
    // A header of 100 MB is the most that the format allows; that one is said to be there takes nothing.
    let mut long = file("{}", 0);
    long[..8].copy_from_slice(&99_999_999_u64.to_le_bytes());
    assert!(open(&[("model.safetensors", &long)]).is_err());
}

#[test]
fn tensors_without_weights_are_no_more_than_nothing() {
    let header = r#"{"model.layers.0.mlp.up_proj.weight":{"dtype":"BF16","shape":[0,8],"data_offsets":[0,0]},
        "model.layers.0.mlp.down_proj.weight":{"dtype":"BF16","shape":[8,0],"data_offsets":[0,0]},
        "model.layers.0.self_attn.q_proj.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}"#;
    let draft = open(&[("model.safetensors", &file(header, 8))]).unwrap();
    assert_eq!(draft.tensors().len(), 3);
}

#[test]
fn a_header_of_a_million_tensors_is_read_within_the_bounds() {
    let mut header = String::from("{");
    for index in 0..1_000_000 {
        let comma = if index == 0 { "" } else { "," };
        header += &format!(
            r#"{comma}"model.layers.{index}.x.weight":{{"dtype":"U8","shape":[],"data_offsets":[{index},{}]}}"#,
            index + 1
        );
    }
    header.push('}');
    assert!(header.len() < 100_000_000);
    let start = Instant::now();
    let opened = open(&[("model.safetensors", &file(&header, 1_000_000))]);
    let took = start.elapsed();
    println!("{} bytes of header: {took:?}", header.len());
    // Nothing in it can be pruned.
    assert!(opened.is_err());
}

#[test]
fn names_that_steer_a_terminal_or_lead_elsewhere_are_shown_escaped_and_open_nothing() {
    let name = "../../etc/\\u001b[2J\\u202e";
    let header = format!(
        r#"{{"{name}":{{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}},"{name}x":{{"dtype":"U7","shape":[],"data_offsets":[8,9]}}}}"#
    );
    let error = open(&[("model.safetensors", &file(&header, 9))]).unwrap_err();
    assert!(
        !error.contains('\u{1b}') && !error.contains('\u{202e}'),
        "{error}"
    );
    assert!(error.contains(r"\u{1b}"), "{error}");
    assert_eq!(shown("\u{1b}[2J").to_string(), r"\u{1b}[2J");
    let shard = file(r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#, 1);
    for elsewhere in [
        "../a.safetensors",
        "/etc/passwd",
        "x/../../a.safetensors",
        "..\\\\a.safetensors",
        "C:a.safetensors",
    ] {
        let index = format!(r#"{{"weight_map":{{"a":"{elsewhere}"}}}}"#);
        let files = [
            ("model.safetensors.index.json", index.as_bytes()),
            ("a.safetensors", &shard),
        ];
        assert!(open(&files).is_err(), "{elsewhere}");
    }
    let twice = br#"{"weight_map":{"a":"a.safetensors","a":"a.safetensors"}}"#;
    assert!(
        open(&[
            ("model.safetensors.index.json", twice),
            ("a.safetensors", &shard)
        ])
        .is_err()
    );
}

#[test]
fn a_hundred_thousand_levels_are_an_error_in_every_file() {
    let deep = "[".repeat(100_000);
    let header = format!("{{\"__metadata__\":{deep}");
    assert!(open(&[("model.safetensors", &file(&header, 0))]).is_err());
    let index = format!("{{\"weight_map\":{deep}");
    assert!(open(&[("model.safetensors.index.json", index.as_bytes())]).is_err());
    let weights = file(r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#, 1);
    let config = format!("{{\"model_type\":{deep}");
    let files = [
        ("config.json", config.as_bytes()),
        ("model.safetensors", &weights),
    ];
    assert!(open(&files).is_err());
    hide_panics_of_the_tokenizer();
    let closed = format!("{{\"normalizer\":{deep}{}}}", "]".repeat(100_000));
    let objects = format!(
        "{}1{}",
        "{\"decoder\":".repeat(100_000),
        "}".repeat(100_000)
    );
    for tokenizer in [deep, closed, objects] {
        let run = || entry::tokenizer(tokenizer.as_bytes());
        bounded(
            "tokenizer.json",
            tokenizer.len(),
            &mut Worst::default(),
            run,
        );
    }
}

#[test]
fn a_configuration_of_a_thousand_million_layers_or_a_vocabulary_of_two_to_the_forty_is_an_error() {
    let with = |key: &str, value: &str| {
        let config: serde_json::Value = serde_json::from_str(EXAMPLE_CONFIG).unwrap();
        let mut config = config.as_object().unwrap().clone();
        config.insert(key.to_owned(), serde_json::from_str(value).unwrap());
        serde_json::Value::Object(config).to_string()
    };
    for (key, value) in [
        ("num_hidden_layers", "1000000000"),
        ("vocab_size", "1099511627776"),
        ("hidden_size", "18446744073709551615"),
        ("num_attention_heads", "4611686018427387904"),
        ("intermediate_size", "1099511627776"),
        ("max_position_embeddings", "18446744073709551615"),
        ("num_key_value_heads", "0"),
        ("head_dim", "9223372036854775808"),
    ] {
        let config = with(key, value);
        let run = || entry::config(config.as_bytes());
        bounded(key, config.len(), &mut Worst::default(), run);
    }
    // Such as are refused by name and not only survived.
    for key in ["num_hidden_layers", "vocab_size"] {
        let dir = tempfile::tempdir().unwrap();
        let model = entry::root().join("examples/tiny-llama/model.safetensors");
        fs::copy(model, dir.path().join("model.safetensors")).unwrap();
        fs::write(dir.path().join("config.json"), with(key, "1099511627776")).unwrap();
        let checkpoint = Checkpoint::open(dir.path().to_str().unwrap()).unwrap();
        let run = || swiftprune_wgpu::internals::Architecture::of(&checkpoint).map(drop);
        let error = bounded(key, 1000, &mut Worst::default(), run).unwrap_err();
        println!("{key}: {error}");
    }
}

#[test]
fn text_of_two_to_the_sixty_three_bytes_in_a_gguf_file_is_refused() {
    let original = fs::read(entry::root().join("fuzz/corpus/gguf/imatrix")).unwrap();
    // Behind magic, version and the two counts: the length of the first key.
    for (at, value) in [(24, 1_u64 << 63), (8, u64::MAX), (16, 1 << 62)] {
        let mut bytes = original.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bounded("gguf", bytes.len(), &mut Worst::default(), || {
            entry::gguf(&bytes)
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        fs::write(&path, &bytes).unwrap();
        assert!(swiftprune_wgpu::norms::Norms::read(&path).is_err());
    }
}

#[cfg(unix)]
#[test]
fn links_that_loop_and_what_is_no_regular_file_are_refused_at_once() {
    use std::os::unix::fs::symlink;
    let refused = |make: &dyn Fn(&Path)| {
        for name in [
            "model.safetensors",
            "model.safetensors.index.json",
            "config.json",
        ] {
            let dir = tempfile::tempdir().unwrap();
            if name == "config.json" {
                let header = r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#;
                fs::write(dir.path().join("model.safetensors"), file(header, 1)).unwrap();
            }
            make(&dir.path().join(name));
            let path = dir.path().to_str().unwrap().to_owned();
            let open = || Checkpoint::open(&path).map(drop);
            let opened = bounded(name, 0, &mut Worst::default(), open);
            assert!(opened.is_err(), "{name}");
        }
    };
    refused(&|path| symlink(path.file_name().unwrap(), path).unwrap());
    refused(&|path| symlink("/dev/zero", path).unwrap());
    refused(&|path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    });
    refused(&|path| fs::create_dir(path).unwrap());
}
