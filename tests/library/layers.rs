//! The layers of ARCHITECTURE.md hold: no file uses a file of a higher layer, and no files use each other in a circle.
//!
//! A file uses another when it names it in a path: `crate::mask::Mask` uses `src/mask.rs`, `super::error::Error` the file
//! beside it, `header::parse` in a `mod.rs` its child. The code of `#[cfg(test)]` modules may use anything. The paths are
//! read as text, so that what a macro or a glob hides is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module's name (`passes`, `mask`) and its layer, 0 at the bottom.
type Layers = BTreeMap<String, usize>;

/// Files by their module path: `["passes", "ewma"]` is `src/passes/ewma.rs`, `["passes"]` is `src/passes/mod.rs`.
type Files = BTreeMap<Vec<String>, String>;

/// Which files a file uses.
type Arrows = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

#[test]
fn no_file_uses_a_higher_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let layers = layers(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let arrows = arrows(&files(&root.join("src")));
    assert_eq!(upward(&layers, &arrows), Vec::<String>::new());
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let arrows = arrows(&files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));
    assert!(arrows.len() > 50, "only {} files were read", arrows.len());
    assert_eq!(circle(&arrows), Vec::<String>::new());
}

/// `usize` has 32 bits in a browser (`web/`), where a checkpoint may have more bytes than that.
#[test]
fn sizes_become_u64_before_they_are_multiplied() {
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let narrow = |(path, text): (&Vec<String>, &String)| {
        let lines = text.lines().filter(|line| multiplies_too_early(line));
        let lines = lines.map(|line| format!("{}: {}", path.join("::"), line.trim()));
        lines.collect::<Vec<_>>()
    };
    let narrow: Vec<String> = files.iter().flat_map(narrow).collect();
    assert_eq!(narrow, Vec::<String>::new());
}

#[test]
fn a_product_that_becomes_a_u64_too_late_is_noticed() {
    for early in [
        "let n = (rows * features) as u64;",
        "4 * (rows.len() * row_bytes(a)) as u64",
        "((a + b) * size) as u64",
        "shape.iter().product::<usize>() as u64",
    ] {
        assert!(multiplies_too_early(early), "{early}");
    }
    for right in [
        "rows as u64 * features as u64",
        "(a + b) as u64",
        "words(a * b) as u64",
        "(seconds * TARGET.as_secs_f64()) as u64",
        "(TILE * TILE) as u64",
    ] {
        assert!(!multiplies_too_early(right), "{right}");
    }
}

/// Whether a line widens what it has multiplied, but for constants and floats.
fn multiplies_too_early(line: &str) -> bool {
    let ends = line.match_indices(") as u64").map(|(end, _)| end);
    let is_product = |end: usize| {
        let mut depth = 0;
        let mut open = line[..=end].char_indices().rev();
        let begin = open.find(|(_, c)| {
            depth += i32::from(*c == ')') - i32::from(*c == '(');
            depth == 0
        });
        let Some((begin, _)) = begin else {
            return false;
        };
        let is_call = line[..begin].ends_with(|c: char| c.is_alphanumeric() || "_>".contains(c));
        let inner = &line[begin + 1..end];
        let has_variable = inner.contains(|c: char| c.is_lowercase());
        !is_call && has_variable && inner.contains(" * ") && !inner.contains("f64")
    };
    line.contains("product::<usize>() as u64") || ends.into_iter().any(is_product)
}

#[test]
fn an_arrow_up_and_a_circle_are_noticed() {
    let file = |path: &[&str], text: &str| {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        (path, text.to_owned())
    };
    let files = Files::from([
        file(&["mask"], "use crate::passes::{ewma::{self, Ewma}, Pass};"),
        file(&["passes"], "mod ewma;\nmod keys;\npub use ewma::Ewma;"),
        file(&["passes", "ewma"], "fn f(x: super::keys::Key) {}"),
        file(
            &["passes", "keys"],
            "// use crate::mask;\nuse super::ewma::X;",
        ),
        file(&["report"], "use crate::Dtype;"),
        file(&["error"], "#[cfg(test)]\nmod tests { use crate::mask; }"),
    ]);
    let arrows = arrows(&files);
    let of = |path: &[&str]| -> Vec<String> {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        arrows[&path].iter().map(|to| to.join("::")).collect()
    };
    assert_eq!(of(&["mask"]), ["passes", "passes::ewma"]);
    assert_eq!(of(&["passes"]), ["passes::ewma"]);
    assert_eq!(of(&["passes", "ewma"]), ["passes::keys"]);
    assert_eq!(of(&["error"]), Vec::<String>::new());
    let layers = layers("```layers\npasses  # a comment\nmask report\nerror\n```");
    assert_eq!(
        upward(&layers, &arrows),
        [
            "mask uses passes",
            "mask uses passes::ewma",
            "report uses lib"
        ]
    );
    assert_eq!(circle(&arrows), ["passes::ewma", "passes::keys"]);
}

/// The block of ARCHITECTURE.md: a layer a line, the highest first, its modules apart by spaces.
fn layers(architecture: &str) -> Layers {
    let (_, block) = architecture
        .split_once("```layers\n")
        .expect("ARCHITECTURE.md has a block of layers");
    let (block, _) = block.split_once("```").expect("the block of layers ends");
    let lines = block
        .lines()
        .map(|line| line.split_once("  #").map_or(line, |(modules, _)| modules));
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let mut layers = Layers::from([("lib".to_owned(), usize::MAX)]);
    for (layer, line) in lines.iter().rev().enumerate() {
        for room in line.split_whitespace() {
            assert_eq!(layers.insert(room.to_owned(), layer), None, "{room} twice");
        }
    }
    layers
}

fn files(src: &Path) -> Files {
    let mut files = Files::new();
    let mut directories = vec![(Vec::new(), src.to_path_buf())];
    while let Some((path, directory)) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap().path();
            let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut module: Vec<String> = path.clone();
            if entry.is_dir() {
                module.push(name);
                directories.push((module, entry));
                continue;
            }
            let is_code = entry.extension().is_some_and(|extension| extension == "rs");
            let is_root = path.is_empty() && (name == "lib" || name == "main");
            if !is_code || is_root || name == "tests" {
                continue;
            }
            if name != "mod" {
                module.push(name);
            }
            files.insert(module, fs::read_to_string(entry).unwrap());
        }
    }
    files
}

fn arrows(files: &Files) -> Arrows {
    files
        .iter()
        .map(|(module, text)| {
            let code = code(text);
            let mut used: BTreeSet<Vec<String>> = paths(&code)
                .into_iter()
                .filter_map(|path| resolve(module, &path, files))
                .collect();
            used.remove(module);
            (module.clone(), used)
        })
        .collect()
}

/// The code without comments, literals and test modules.
fn code(text: &str) -> String {
    let of_tests = ["mod tests {", "pub(crate) mod tests {"];
    let starts = of_tests.map(|tests| text.find(&format!("#[cfg(test)]\n{tests}")));
    let text = &text[..starts.into_iter().flatten().min().unwrap_or(text.len())];
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every path of at least two parts, with the braces of `use` written out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let tokens = tokens(code);
    let mut at = 0;
    while at < tokens.len() {
        let is_start = at == 0 || tokens[at - 1] != "::";
        if is_start && is_name(tokens[at]) && tokens.get(at + 1) == Some(&"::") {
            at = tree(&tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found.retain(|path| path.len() > 1);
    found
}

/// Reads the path that begins at `at`; where it branches into braces, each branch. Returns what comes behind it.
fn tree(tokens: &[&str], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at).filter(|token| is_name(token)) {
        path.push((*token).to_owned());
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
        if tokens.get(at) == Some(&"{") {
            at += 1;
            while tokens.get(at).is_some_and(|token| *token != "}") {
                let next = tree(tokens, at, &path, found);
                at = next.max(at + 1);
                while tokens
                    .get(at)
                    .is_some_and(|token| *token != "}" && *token != ",")
                {
                    at += 1; // `as NAME`
                }
                at += usize::from(tokens.get(at) == Some(&","));
            }
            return at + 1;
        }
    }
    found.push(path);
    at
}

fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let name = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let len = match name {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            name => name,
        };
        if !first.is_whitespace() {
            tokens.push(&rest[..len]);
        }
        rest = &rest[len..];
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The file that a path written in `module` leads to: the deepest one that is a file; `None` if it leads out of the crate.
fn resolve(module: &[String], path: &[String], files: &Files) -> Option<Vec<String>> {
    let (mut base, mut rest) = match path[0].as_str() {
        "crate" | "swiftprune_wgpu" => (Vec::new(), &path[1..]),
        "super" => (
            module[..module.len().saturating_sub(1)].to_vec(),
            &path[1..],
        ),
        "self" => (module.to_vec(), &path[1..]),
        // A path that starts with a name may start with a child's.
        _ => {
            let mut child = module.to_vec();
            child.push(path[0].clone());
            if !files.contains_key(&child) {
                return None;
            }
            (child, &path[1..])
        }
    };
    while rest.first().is_some_and(|part| part == "super") {
        base.pop();
        rest = &rest[1..];
    }
    for part in rest {
        base.push(part.clone());
        if !files.contains_key(&base) {
            base.pop();
            break;
        }
    }
    // What is left of a path to the crate's root is what `lib.rs` hands on, which is for users.
    if base.is_empty() && !rest.is_empty() && path[0] != "swiftprune_wgpu" {
        base.push("lib".to_owned());
    }
    (!base.is_empty()).then_some(base)
}

fn upward(layers: &Layers, arrows: &Arrows) -> Vec<String> {
    let layer = |file: &[String]| {
        *layers
            .get(&file[0])
            .unwrap_or_else(|| panic!("{} is in no layer of ARCHITECTURE.md", file[0]))
    };
    let all = arrows
        .iter()
        .flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| layer(from) < layer(to))
        .map(|(from, to)| format!("{} uses {}", from.join("::"), to.join("::")))
        .collect()
}

/// The files that lead back to themselves.
fn circle(arrows: &Arrows) -> Vec<String> {
    let leads_back = |file: &&Vec<String>| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&Vec<String>> = arrows[*file].iter().collect();
        while let Some(at) = next.pop() {
            if at == *file {
                return true;
            }
            if seen.insert(at) {
                next.extend(arrows.get(at).into_iter().flatten());
            }
        }
        false
    };
    let files = arrows.keys().filter(leads_back);
    files.map(|file| file.join("::")).collect()
}
