//! `dirnet data`

use super::output::{Output, table, thousands};
use super::{DataDir, open_data};
use crate::Error;
use clap::{Args, Subcommand};
use serde::Serialize;

/// Data sets.
#[derive(Args, Debug)]
pub(super) struct Data {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The sets that have a name, and where they are
    ///
    /// JSON keys, an object a set: name what train test shape classes here folder.
    List {
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// What is in a set
    ///
    /// JSON keys: name train test shape classes mean std source.
    Info {
        /// A name of `data list`, npz:FILE or folder:DIR
        name: String,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Download a set, with its checksum
    ///
    /// JSON keys: name folder.
    Fetch {
        /// mnist, fashion-mnist or cifar10
        name: String,
        #[command(flatten)]
        data_dir: DataDir,
        /// A mirror: the address of a folder with the same files
        #[arg(long, value_name = "URL")]
        from: Option<String>,
    },
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    what: &'static str,
    train: usize,
    test: usize,
    shape: [usize; 3],
    classes: usize,
    here: bool,
    folder: Option<String>,
}

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    train: usize,
    test: usize,
    shape: [usize; 3],
    classes: &'a [String],
    mean: &'a [f32],
    std: &'a [f32],
    source: &'a str,
}

#[derive(Serialize)]
struct Fetched {
    name: String,
    folder: String,
}

impl Data {
    pub fn run(self, out: &Output) -> Result<(), Error> {
        match self.verb {
            Verb::List { data_dir } => list(&data_dir, out),
            Verb::Info { name, data_dir } => info(&name, &data_dir, out)?,
            Verb::Fetch { name, data_dir, from } => fetch(name, &data_dir, from, out)?,
        }
        Ok(())
    }
}

fn list(data_dir: &DataDir, out: &Output) {
    let mut rows = Vec::new();
    for set in dirnet_datasets::list(data_dir.data_dir.as_deref()) {
        let here = set.embedded || set.folder.is_some();
        let folder = set.folder.map(|folder| folder.display().to_string());
        let place = match (&folder, set.embedded) {
            (Some(folder), _) => folder.clone(),
            (None, true) => "embedded".to_string(),
            (None, false) => "not here".to_string(),
        };
        let shape = set.shape.map(|n| n.to_string()).join("x");
        let counts = [thousands(set.train), thousands(set.test)];
        let [train, test] = counts;
        rows.push(vec![set.name.into(), set.what.into(), place, shape, train, test]);
        out.object(&Listed {
            name: set.name,
            what: set.what,
            train: set.train,
            test: set.test,
            shape: set.shape,
            classes: set.classes,
            here,
            folder,
        });
    }
    out.line(&table(&["name", "what", "where", "image", "train", "test"], 3, rows));
    out.line("what is not here: dirnet data fetch NAME");
    out.line(
        "your own: npz:FILE (x_train, y_train, x_test, y_test), folder:DIR (one folder a class)",
    );
}

fn info(name: &str, data_dir: &DataDir, out: &Output) -> Result<(), Error> {
    let data = open_data(name, data_dir)?;
    let count = |split: &dirnet_datasets::Split, class: usize| {
        split.labels().filter(|&label| label as usize == class).count()
    };
    let rows = data.classes.iter().enumerate().map(|(i, class)| {
        vec![class.clone(), thousands(count(&data.train, i)), thousands(count(&data.test, i))]
    });
    out.line(&table(&["class", "train", "test"], 1, rows));
    let [c, h, w] = data.shape();
    let (train, test) = (data.train.len(), data.test.len());
    out.line(&format!(
        "{} training and {} test images, {c}x{h}x{w}",
        thousands(train),
        thousands(test)
    ));
    out.line(&format!("mean {:?}, standard deviation {:?}", data.mean, data.std));
    if !data.source.is_empty() {
        out.line(&data.source);
    }
    out.object(&Described {
        name,
        train,
        test,
        shape: data.shape(),
        classes: &data.classes,
        mean: &data.mean,
        std: &data.std,
        source: &data.source,
    });
    Ok(())
}

fn fetch(
    name: String,
    data_dir: &DataDir,
    from: Option<String>,
    out: &Output,
) -> Result<(), Error> {
    let home = dirnet_datasets::home(data_dir.data_dir.as_deref()).ok_or_else(|| {
        Error::Setting("no folder for data sets: say --data-dir DIR or set DIRNET_DATA".into())
    })?;
    let bar = out.bar(0, "bytes");
    let folder = dirnet_datasets::fetch(&name, &home, from.as_deref(), &mut |progress| {
        bar.set_prefix(progress.file.to_string());
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let folder = folder?.display().to_string();
    out.line(&format!("{name} lies in {folder}"));
    out.object(&Fetched { name, folder });
    Ok(())
}
