//! `mirach why`: what would happen to a frame in the switch, element by element, and why.

mod frame;
mod words;

use std::path::Path;
use std::process::ExitCode;

use dataplane::control::hex;
use dataplane::network::Config;
use dataplane::port::pcap::Capture;
use dataplane::vswitch::report::Explanation;
use serde_json::json;

use super::ask;
use crate::cli::WhyArguments;
use crate::output;
use words::Words;

/// A frame as the user gave it.
enum Given {
    Bytes(Vec<u8>),
    Words(Words),
}

/// Runs the command.
pub(crate) fn execute(arguments: WhyArguments) -> anyhow::Result<ExitCode> {
    let WhyArguments { port, frame, index, ask } = arguments;
    let given = match read(&frame, index) {
        Ok(given) => given,
        Err(reason) => {
            eprintln!("error: {reason}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut client = ask::connect(ask.control)?;
    let bytes = match given {
        Given::Bytes(bytes) => bytes,
        Given::Words(words) => {
            let mut answer = client.call("config.get", json!({}))?;
            let config: Config = ask::read(answer["config"].take())?;
            let frame = words.frame(&port, &config);
            if !ask.json {
                output::line(&format!(
                    "frame: {} to {}, {} bytes",
                    frame.source(),
                    frame.destination(),
                    frame.bytes().len()
                ))?;
            }
            frame.into_bytes()
        }
    };
    let answer = client.call("flow.why", json!({ "port": port, "frame": hex::write(&bytes) }))?;
    if ask.json {
        output::json(&answer)?;
    } else {
        output::line(&text(&ask::read(answer)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A file, digits, or words.
fn read(frame: &[String], index: usize) -> Result<Given, String> {
    if let [file] = frame
        && Path::new(file).is_file()
    {
        return of_file(Path::new(file), index).map(Given::Bytes);
    }
    let text = frame.join(" ");
    let digits: String = text.chars().filter(|letter| !letter.is_whitespace() && !":-".contains(*letter)).collect();
    if digits.len() >= 28 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let bytes = hex::read(&digits).ok_or("a frame has two hexadecimal digits for each byte; one is missing")?;
        return Ok(Given::Bytes(bytes));
    }
    text.parse().map(Given::Words)
}

fn of_file(file: &Path, index: usize) -> Result<Vec<u8>, String> {
    let capture = Capture::load(file).map_err(|reason| format!("{}: {reason}", file.display()))?;
    let frame = index.checked_sub(1).and_then(|index| capture.frame(index));
    frame
        .map(<[u8]>::to_vec)
        .ok_or_else(|| format!("{}: there is no frame {index}; --index is 1 to {}", file.display(), capture.len()))
}

fn text(explanation: &Explanation) -> String {
    let Explanation { steps, reasons, verdict, .. } = explanation;
    let width = steps.iter().map(|step| step.element.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for step in steps {
        text.push_str(&format!("{:<width$}  {}\n", step.element, step.text));
    }
    if !reasons.is_empty() {
        text.push_str("why:\n");
        reasons.iter().for_each(|reason| text.push_str(&format!("  {reason}\n")));
    }
    text.push_str(&format!("verdict: {verdict}"));
    text
}

/// The bytes of a frame in words.
#[cfg(test)]
pub(crate) fn frame_of_words(words: &str) -> Vec<u8> {
    let words: Words = words.parse().unwrap_or_else(|reason| panic!("{reason}"));
    words.frame("", &Config::default()).into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use dataplane::vswitch::report::ExplanationStep;

    #[test]
    fn frames_are_given_in_three_ways() {
        let read = |words: &[&str]| read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), 1);
        let bytes = |words: &[&str]| match read(words) {
            Ok(Given::Bytes(bytes)) => bytes,
            Ok(Given::Words(_)) => panic!("{words:?} are words"),
            Err(reason) => panic!("{reason}"),
        };
        let frame = [0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00];
        assert_eq!(bytes(&["5254000000025254000000010800"]), frame);
        assert_eq!(bytes(&["52:54:00:00:00:02", "52:54:00:00:00:01", "08", "00"]), frame);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pcap");
        let mut content = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1, 0, 0, 14, 14].map(u32::to_le_bytes).concat();
        content.extend(frame);
        std::fs::write(&file, content).unwrap();
        let name = file.to_str().unwrap();
        assert_eq!(bytes(&[name]), frame);
        assert_eq!(of_file(&file, 2).unwrap_err(), format!("{name}: there is no frame 2; --index is 1 to 1"));
        assert!(of_file(&file, 0).is_err());
        assert!(matches!(read(&["tcp", "10.0.0.1:1", ">", "10.0.0.2:2"]), Ok(Given::Words(_))));
        let wrong = |words: &[&str]| read(words).err().unwrap();
        assert!(wrong(&["52540000000252540000000108000"]).contains("two hexadecimal digits"));
        assert!(wrong(&["missing.pcap"]).contains("missing.pcap"), "{}", wrong(&["missing.pcap"]));
    }

    #[test]
    fn an_explanation_ends_with_the_verdict() {
        let step = |element: &str, text: &str| ExplanationStep { element: element.to_owned(), text: text.to_owned() };
        let explanation = Explanation {
            steps: vec![step("parse", "ether_type 0x0800"), step("look up", "nobody knows it")],
            reasons: vec!["no rule lets it in".to_owned()],
            verdict: "dropped: a rule denies it".to_owned(),
            ..Explanation::default()
        };
        let expected = "parse    ether_type 0x0800\nlook up  nobody knows it\nwhy:\n  no rule lets it in\nverdict: dropped: a rule denies it";
        assert_eq!(text(&explanation), expected);
    }
}
