//! Texts, their tokens and windows, through a whole model.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::*;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama")
}

fn text(content: &'static str) -> Text {
    Text::new("a text", content)
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused() {
    let dir = tampered("llama", "model.norm.weight", |_| {});
    let tokenizer = example().join("tokenizer.json");
    fs::copy(tokenizer, dir.path().join("tokenizer.json")).unwrap();
    let checkpoint = open(dir.path());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 100, None).unwrap();
    let error = calibration
        .run(&checkpoint, &cpu(1), &unwatched)
        .unwrap_err();
    let says = "tokenizer.json belongs to another model than the weights";
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn a_pass_that_is_not_let_on_stops_at_the_next_block() {
    let checkpoint = open(&example());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 64, None).unwrap();
    let (all, told) = (Cell::new(0), Cell::new(0));
    let norms = calibration.run(&checkpoint, &cpu(1), &|_| {
        all.set(all.get() + 1);
        ControlFlow::Continue(())
    });
    assert!(norms.is_ok() && all.get() > 2, "{}", all.get());
    let stopped = calibration.run(&checkpoint, &cpu(1), &|_| {
        told.set(told.get() + 1);
        if told.get() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let error = stopped.unwrap_err();
    assert!(error.is_stopped(), "{error}");
    assert_eq!(told.get(), 2);
}

#[test]
fn norms_say_what_they_were_measured_on() {
    let checkpoint = open(&example());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 700, Some(300)).unwrap();
    let norms = calibration.run(&checkpoint, &cpu(2), &unwatched).unwrap();
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("norms.safetensors");
    norms.write(&path).unwrap();
    let read = Norms::read(&path).unwrap();
    assert_eq!(read.source.tokens, Some(700));
    assert_eq!(read.source.metadata["context"], "300");
    assert_eq!(read.source.metadata["text"], "built-in calibration text");
    assert_eq!(
        read.source.metadata["text_sha256"],
        Text::calibration().sha256()
    );
    assert_eq!(
        read.len(),
        4 * 7,
        "a vector for every linear weight of the blocks"
    );
}

#[test]
fn a_text_longer_than_the_context_goes_in_windows_and_a_shorter_one_is_one() {
    let checkpoint = open(&example());
    let run = |text: &Text, context, tokens| {
        Windows::new(&checkpoint, text, context, tokens)?.run(&checkpoint, &cpu(2), &unwatched)
    };
    let long = run(&Text::held_out(), Some(64), Some(200)).unwrap();
    assert_eq!((long.losses.len(), long.tokens()), (3, 3 * 63));
    let short = run(&text("In the beginning was the Word"), None, None).unwrap();
    assert_eq!((short.context, short.losses.len()), (512, 1));
    assert!(short.tokens() < 20);
    let error = run(&text("a"), None, None).unwrap_err().to_string();
    assert!(error.contains("a text has 1 tokens"), "{error}");
}

#[test]
fn threads_do_not_change_what_a_model_is_surprised_by() {
    let checkpoint = open(&example());
    let run = |threads| {
        let text = Text::held_out();
        let windows = Windows::new(&checkpoint, &text, Some(128), Some(512)).unwrap();
        windows.run(&checkpoint, &cpu(threads), &unwatched).unwrap()
    };
    let difference = run(1).difference(&run(3)).unwrap();
    assert!(difference.mean.abs() < 1e-5, "{difference:?}");
}

#[test]
fn the_example_is_as_surprised_by_its_held_out_text_as_when_it_was_made() {
    let checkpoint = open(&example());
    let text = Text::read(&example().join("heldout.txt")).unwrap();
    let windows = Windows::new(&checkpoint, &text, Some(256), None).unwrap();
    let evaluation = windows.run(&checkpoint, &cpu(2), &unwatched).unwrap();
    // Its README says 33.8, measured in Python when it was trained.
    assert!(
        (evaluation.perplexity() - 33.8).abs() < 0.1,
        "{}",
        evaluation.perplexity()
    );
    assert_eq!(evaluation.losses.len(), 47);
}

/// The example whose tokenizer puts these tokens before a text.
fn with_prefix(prefix: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(example().join(name), dir.path().join(name)).unwrap();
    }
    let tokenizer = fs::read_to_string(example().join("tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    let special = |name: &&str| serde_json::json!({"SpecialToken": {"id": name, "type_id": 0}});
    let mut single: Vec<_> = prefix.iter().map(special).collect();
    single.push(serde_json::json!({"Sequence": {"id": "A", "type_id": 0}}));
    // What is put behind a text is not part of it, as windows are cut from its middle.
    single.push(special(&"</s>"));
    let ids = serde_json::json!({
        "<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
        "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]},
    });
    tokenizer["post_processor"] = serde_json::json!(
        {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": ids});
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    dir
}

/// The first windows of a text: what is put before each, and as much of the text as fits behind it.
fn windows_by_hand(prefix: &[u32], text: &Text, context: usize, count: usize) -> Vec<Vec<u32>> {
    let tokenizer = tokenizers::Tokenizer::from_file(example().join("tokenizer.json")).unwrap();
    let encoding = tokenizer.encode(&*text.content, false).unwrap();
    let windows = encoding.get_ids().chunks(context - prefix.len());
    let windows = windows.map(|of_text| [prefix, of_text].concat());
    windows.take(count).collect()
}

#[test]
fn every_window_begins_with_the_tokenizers_prefix_which_predicts_and_is_not_predicted() {
    for (names, prefix) in [
        (&["<s>"][..], &[0][..]),
        (&["</s>", "<s>"], &[1, 0]),
        (&[], &[]),
    ] {
        let dir = with_prefix(names);
        let checkpoint = open(dir.path());
        let windows = windows_by_hand(prefix, &Text::held_out(), 48, 3);
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        let architecture = Architecture::of(&checkpoint).unwrap();
        let device = cpu(1);
        let forward = Forward::new(&checkpoint, &architecture, &device);
        let losses = forward.losses(&windows, &unwatched).unwrap();
        // The forward pass gives the loss of all tokens but the first.
        let of_text = |window: &Vec<f32>| window[prefix.len().max(1) - 1..].to_vec();
        let wanted: Vec<Vec<f32>> = losses.iter().map(of_text).collect();

        let found = Windows::new(&checkpoint, &Text::held_out(), Some(48), Some(3 * 48)).unwrap();
        let found = found.run(&checkpoint, &device, &unwatched).unwrap();
        assert_eq!(found.losses, wanted, "{names:?}");
        assert_eq!(found.prefix.ids(), prefix);
    }
}

#[test]
fn a_perplexity_with_a_prefix_is_that_of_transformers() {
    let dir = with_prefix(&["<s>"]);
    let checkpoint = open(dir.path());
    let text = Text::read(&example().join("heldout.txt")).unwrap();
    let windows = Windows::new(&checkpoint, &text, Some(128), Some(1024)).unwrap();
    let found = windows.run(&checkpoint, &cpu(2), &unwatched).unwrap();
    // transformers 5.24 in f32: `<s>` and 127 tokens of the text, eight times.
    let wanted = 28.500_657_92;
    let off = (found.perplexity() / wanted - 1.0).abs();
    assert!(off < 1e-5, "{}, not {wanted}", found.perplexity());
    assert_eq!(found.tokens(), 8 * 127);
}

#[test]
fn norms_are_of_windows_that_begin_with_the_prefix_and_say_so() {
    let dir = with_prefix(&["<s>"]);
    let checkpoint = open(dir.path());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 90, Some(40)).unwrap();
    // Two whole windows, and one of ten tokens.
    assert_eq!(calibration.tokens(), 90);
    let norms = calibration.run(&checkpoint, &cpu(1), &unwatched).unwrap();
    assert_eq!(norms.source.metadata["prefix"], "`<s>` (0)");

    let mut windows = windows_by_hand(&[0], &Text::calibration(), 40, 3);
    windows[2].truncate(10);
    let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    for of_site in forward.statistics(&windows, &unwatched).unwrap() {
        let weight = &of_site.site.readers[0];
        let in_features = of_site.column_norms.len();
        let found = norms.get(weight, None, in_features).unwrap();
        assert_eq!(found, Lookup::Measured(&of_site.column_norms), "{weight}");
    }
}

#[test]
fn a_window_without_room_for_text_behind_the_prefix_is_refused() {
    let dir = with_prefix(&["</s>", "<s>"]);
    let checkpoint = open(dir.path());
    let says = "a window of 2 is too short: windows have 3 tokens at least, as each begins with `</s>` (1), `<s>` (0)";
    let error = Calibration::new(&checkpoint, Text::calibration(), 90, Some(2)).unwrap_err();
    assert!(error.to_string().contains(says), "{error}");
    let error = Windows::new(&checkpoint, &Text::held_out(), Some(2), None).unwrap_err();
    assert!(error.to_string().contains(says), "{error}");
}
