//! The promise: each file imports only from its own floor and those below, and every operation
//! that is recorded has a check of its name beside it.

use std::fs;
use std::path::{Path, PathBuf};

/// What lives on which floor, from the ground up.
const FLOORS: &[&[&str]] = &[
    &["datasets", "Rng"],
    &["error", "Error", "tensor", "Tensor", "watch", "spec", "Spec", "Options", "files", "archive"],
    &["params", "Params", "Param", "ParamId", "Role"],
    &["tape", "Tape", "Var", "Grads", "Saved", "LayerGuard", "gradcheck", "gradcheck_at"],
    &["ops", "Conv"],
    &["binarize", "Estimator", "Method", "check_estimator"],
    &["nn", "optim"],
    &["models"],
    &["train"],
    &["deploy"],
    &["lab"],
    &["report"],
    &["cli"],
];

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|names| names.contains(&name))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Path below `src`, and the code that is neither test nor comment.
fn files() -> Vec<(String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&src, &mut paths);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let (code, tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        let code: Vec<_> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let name = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        (name, code.join("\n"), tests.to_string())
    };
    paths.into_iter().map(read).collect()
}

/// First words of what follows `crate::` in the code: `crate::{A, b::C}` gives `A` and `b`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `dirnet_kernels::…` has no `crate::`, `pub(crate)` no colons.
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| {
            text.trim_start()
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
                .to_string()
        };
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push(word(&std::mem::take(&mut item))),
                        _ => {}
                    }
                    if !(c == ',' && depth == 0) {
                        item.push(c);
                    }
                }
                found.push(word(&item));
            }
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

#[test]
fn nobody_imports_from_above() {
    let mut checked = 0;
    for (name, code, _) in files() {
        let home = name.split(['/', '.']).next().unwrap();
        if ["lib", "main"].contains(&home) {
            continue;
        }
        let own = floor(home).unwrap_or_else(|| panic!("src/{name} is on no floor"));
        for import in imports(&code) {
            let other =
                floor(&import).unwrap_or_else(|| panic!("src/{name}: {import} is on no floor"));
            assert!(other <= own, "src/{name} (floor {own}) imports {import} (floor {other})");
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} imports were found");
}

#[test]
fn every_recorded_operation_has_a_check_of_its_name() {
    let mut checked = 0;
    for (name, code, tests) in files() {
        for door in [
            "record(",
            "record_many(",
            "map_from_input(",
            "map_from_output(",
            "map_inside(",
            "binary(",
        ] {
            for (at, _) in code.match_indices(door) {
                let rest = code[at + door.len()..].trim_start();
                let Some(operation) = rest.strip_prefix('"').and_then(|r| r.split('"').next())
                else {
                    continue; // the name comes in from outside
                };
                let check = format!("fn {operation}()");
                assert!(
                    tests.contains(&check),
                    "src/{name}: no test {check} beside \"{operation}\""
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "only {checked} operations were found");
}
