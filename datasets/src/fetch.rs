//! Downloads the full sets from where they are published, and keeps only what has the published checksum.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use md5::{Digest, Md5};

use crate::error::Error;
use crate::open::{embedded, unknown};

struct Source {
    name: &'static str,
    /// The address of the folder the files are in.
    base: &'static str,
    /// The files and their MD5 sums as published: enough against a damaged download, which is all they are for.
    files: &'static [(&'static str, &'static str)],
}

static SOURCES: [Source; 3] = [
    Source {
        name: "fashion-mnist",
        base: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        files: &[
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ],
    },
    Source {
        name: "mnist",
        base: "https://ossci-datasets.s3.amazonaws.com/mnist",
        files: &[
            ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        ],
    },
    Source {
        name: "cifar10",
        base: "https://www.cs.toronto.edu/~kriz",
        files: &[("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")],
    },
];

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The name of the file being downloaded.
    pub file: &'a str,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, where the server says.
    pub total: Option<u64>,
}

/// Downloads `mnist`, `fashion-mnist` or `cifar10` into a folder of its name in `home` (see
/// [`home`](crate::home)), and returns that folder. Files that are there already and right are kept.
///
/// Each file is written as `FILE.part`, checked against its published MD5 sum, synced, and only then renamed;
/// where this fails, the part is removed, and another try begins anew. `base` replaces the address of the folder
/// that the files are published in, for a mirror. `progress` is called after each piece.
///
/// # Errors
/// If the name is not one of these, a file cannot be downloaded or written, or its sum is wrong.
pub fn fetch(
    name: &str,
    home: &Path,
    base: Option<&str>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, Error> {
    let Some(source) = SOURCES.iter().find(|source| source.name == name) else {
        return Err(match embedded(name) {
            true => Error::format(name, "a set that is part of the program", "one to download"),
            false => unknown(name),
        });
    };
    source.fetch(home, base, progress)
}

impl Source {
    fn fetch(
        &self,
        home: &Path,
        base: Option<&str>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, Error> {
        let folder = home.join(self.name);
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        for (file, sum) in self.files {
            let path = folder.join(file);
            if path.is_file() && sum_of(&path)? == *sum {
                continue;
            }
            let part = folder.join(format!("{file}.part"));
            let url = format!("{}/{file}", base.unwrap_or(self.base).trim_end_matches('/'));
            let mut progress = |done, total| progress(Progress { file, done, total });
            let done = download(&url, &part, sum, &mut progress)
                .and_then(|()| fs::rename(&part, &path).map_err(|e| Error::io("rename", &part, e)));
            if done.is_err() {
                let _ = fs::remove_file(&part); // what went wrong first is what matters
            }
            done?;
        }
        Ok(folder)
    }
}

/// Writes what the address holds to `part`, and refuses it if its sum is another.
fn download(
    url: &str,
    part: &Path,
    sum: &str,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Error> {
    let failed = |cause: String| Error::Download { url: url.into(), cause };
    let patience = Some(Duration::from_secs(60));
    let agent = ureq::Agent::config_builder()
        .timeout_connect(patience)
        .timeout_recv_response(patience)
        .timeout_per_read(patience)
        .build()
        .new_agent();
    let response = agent.get(url).call().map_err(|e| failed(e.to_string()))?;
    let body = response.into_body();
    let total = body.content_length();
    let mut body = body.into_reader();

    let write = |e| Error::io("write", part, e);
    let mut file = File::create(part).map_err(write)?;
    let (mut hash, mut done, mut piece) = (Md5::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = body.read(&mut piece);
        let n = read.map_err(|e| failed(format!("{e} after {done} bytes")))?;
        if n == 0 {
            break;
        }
        file.write_all(&piece[..n]).map_err(write)?;
        hash.update(&piece[..n]);
        done += n as u64;
        progress(done, total);
    }
    let found = hex(hash);
    if found != sum {
        return Err(Error::format(url, format!("MD5 sum {found} over {done} bytes"), sum));
    }
    file.sync_all().map_err(write)
}

fn sum_of(path: &Path) -> Result<String, Error> {
    let read = |e| Error::io("read", path, e);
    let (mut file, mut hash) = (File::open(path).map_err(read)?, Md5::new());
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece).map_err(read)? {
            0 => return Ok(hex(hash)),
            n => hash.update(&piece[..n]),
        }
    }
}

fn hex(hash: Md5) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    const TOY: Source = Source {
        name: "toy",
        base: "http://nowhere.invalid",
        files: &[
            ("hello", "5d41402abc4b2a76b9719d911017c592"),
            ("empty", "d41d8cd98f00b204e9800998ecf8427e"),
        ],
    };

    /// Answers each request on the loopback with what `answer` makes of its path; counts them.
    fn serve(answer: fn(&str) -> &'static str) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/sets/", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let lines: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                count.fetch_add(1, Ordering::SeqCst);
                let path = lines[0].split(' ').nth(1).unwrap().to_string();
                stream.write_all(answer(&path).as_bytes()).unwrap();
            }
        });
        (base, requests)
    }

    fn good(path: &str) -> &'static str {
        match path {
            "/sets/hello" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
            }
            "/sets/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_right_is_kept() {
        let (base, requests) = serve(good);
        let home = tempfile::tempdir().unwrap();
        let mut seen = vec![];
        let mut watch = |p: Progress<'_>| seen.push((p.file.to_string(), p.done, p.total));
        // What an earlier try left is written over, and a file that is damaged is fetched again.
        fs::create_dir(home.path().join("toy")).unwrap();
        fs::write(home.path().join("toy/hello.part"), "hello, and more").unwrap();
        fs::write(home.path().join("toy/hello"), "hallo").unwrap();
        let folder = TOY.fetch(home.path(), Some(&base), &mut watch).unwrap();
        assert_eq!(folder, home.path().join("toy"));
        assert_eq!(files(&folder), ["empty", "hello"]);
        assert_eq!(fs::read(folder.join("hello")).unwrap(), b"hello");
        assert_eq!(seen, [("hello".to_string(), 5, Some(5))]);
        assert_eq!(requests.load(Ordering::SeqCst), 2);
        TOY.fetch(home.path(), Some(&base), &mut |_| {}).unwrap();
        assert_eq!(requests.load(Ordering::SeqCst), 2, "what is here is not fetched again");
    }

    #[test]
    fn what_is_wrong_is_named_and_removed() {
        let refuse = |answer| {
            let (base, _) = serve(answer);
            let home = tempfile::tempdir().unwrap();
            let error = TOY.fetch(home.path(), Some(&base), &mut |_| {}).unwrap_err().to_string();
            assert_eq!(files(&home.path().join("toy")), [""; 0]);
            error.replace(&base, "BASE/")
        };
        assert_eq!(
            refuse(|_| "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nHello"),
            "BASE/hello: found MD5 sum 8b1a9953c4611296a827abf8c47804d7 over 5 bytes, \
             expected 5d41402abc4b2a76b9719d911017c592"
        );
        let short =
            refuse(|_| "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhel");
        assert!(short.starts_with("cannot download BASE/hello: "), "{short}");
        assert!(short.ends_with(" after 3 bytes"), "{short}");
        let none = refuse(|_| good("/"));
        assert!(none.starts_with("cannot download BASE/hello: ") && none.contains("404"), "{none}");
        let home = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error =
            fetch("mnist", home.path(), Some(&closed), &mut |_| {}).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot download {closed}/train-images-idx3-ubyte.gz: "))
        );
    }

    #[test]
    fn only_published_sets_are_fetched() {
        let home = tempfile::tempdir().unwrap();
        let refuse = |name| fetch(name, home.path(), None, &mut |_| {}).unwrap_err().to_string();
        assert!(refuse("mnits").contains("did you mean `mnist`?"));
        assert_eq!(
            refuse("digits"),
            "digits: found a set that is part of the program, expected one to download"
        );
        let known = crate::list(None).into_iter().filter(|info| !info.embedded);
        let (mut known, mut sources): (Vec<_>, Vec<_>) =
            (known.map(|info| info.name).collect(), SOURCES.iter().map(|s| s.name).collect());
        known.sort_unstable();
        sources.sort_unstable();
        assert_eq!(known, sources);
    }
}
