//! The ladder as a picture: multiples of kernel mode on a logarithmic scale, beside those of the paper.

use super::modes::Mode;
use super::report::{Ladder, PAPER, Rung, times};
use crate::table::time;

/// Size of the picture.
const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 540.0;
/// Where the scales end.
const TOP: f64 = 120.0;
const BOTTOM: f64 = 420.0;
/// The first panel begins here.
const LEFT: f64 = 64.0;
/// Between panels.
const GAP: f64 = 56.0;
/// Widths of the panels, by the groups of bars in them.
const GROUP: f64 = 124.0;
/// Width of a bar.
const BAR: f64 = 26.0;

/// A picture in the making.
struct Picture {
    text: String,
    /// Powers of two at both ends of the scales.
    lowest: i32,
    highest: i32,
}

/// One bar: a multiple of kernel mode, and what it stands for.
struct Bar {
    mode: Mode,
    multiple: f64,
    meaning: String,
}

/// Bars side by side, with what kernel mode has below.
struct Group {
    name: String,
    kernel: String,
    bars: Vec<Bar>,
}

/// Groups on one scale.
struct Panel {
    title: &'static str,
    groups: Vec<Group>,
    paper: f64,
}

/// The picture as SVG. Without kernel mode it has nothing to show.
pub(super) fn draw(ladder: &Ladder) -> String {
    let panels = [throughput(ladder), latency(ladder), cycles(ladder)];
    let multiples = panels.iter().flat_map(|panel| &panel.groups).flat_map(|group| &group.bars).map(|bar| bar.multiple);
    let mut picture = Picture { text: String::new(), lowest: -1, highest: 5 };
    for multiple in multiples {
        while power(picture.lowest) > multiple && picture.lowest > -8 {
            picture.lowest -= 1;
        }
        while power(picture.highest) < multiple * 1.2 && picture.highest < 12 {
            picture.highest += 1;
        }
    }
    picture.begin(ladder);
    let mut left = LEFT;
    for panel in &panels {
        let groups = u32::try_from(panel.groups.len()).unwrap_or(1).max(1);
        let width = GROUP * f64::from(groups);
        picture.panel(panel, left, width);
        left += width + GAP;
    }
    picture.legend(ladder);
    picture.text.push_str("</svg>\n");
    picture.text
}

fn power(exponent: i32) -> f64 {
    f64::from(exponent).exp2()
}

/// Those that are compared with kernel mode.
fn others(ladder: &Ladder) -> impl Iterator<Item = &Rung> {
    ladder.rungs.iter().filter(|rung| rung.mode != Mode::Kernel)
}

fn throughput(ladder: &Ladder) -> Panel {
    let of_kernel = ladder.kernel().map(|rung| &rung.throughputs[..]).unwrap_or_default();
    let groups = of_kernel.iter().map(|of| Group {
        name: of.size.name().to_owned(),
        kernel: format!("{:.3} Mpps", of.packets_per_second / 1e6),
        bars: others(ladder)
            .filter_map(|rung| {
                let own = rung.throughputs.iter().find(|own| own.size == of.size)?;
                let meaning = format!("{:.3} Mpps", own.packets_per_second / 1e6);
                Some(Bar { mode: rung.mode, multiple: ladder.throughput_gain(own)?, meaning })
            })
            .collect(),
    });
    Panel { title: "Throughput", groups: groups.collect(), paper: PAPER.throughput }
}

fn latency(ladder: &Ladder) -> Panel {
    let groups = ladder.kernel().map(|kernel| Group {
        name: "round trip".to_owned(),
        kernel: time(kernel.round_trips.median()),
        bars: others(ladder)
            .filter_map(|rung| {
                let meaning = time(rung.round_trips.median());
                Some(Bar { mode: rung.mode, multiple: ladder.latency_gain(&rung.round_trips)?, meaning })
            })
            .collect(),
    });
    Panel { title: "Latency, times shorter", groups: groups.into_iter().collect(), paper: PAPER.latency }
}

fn cycles(ladder: &Ladder) -> Panel {
    let of_kernel = ladder.kernel().map(|rung| &rung.throughputs[..]).unwrap_or_default();
    let per_byte = |cycles: f64| format!("{cycles:.2} cycles/B");
    let groups = of_kernel.iter().map(|of| Group {
        name: of.size.name().to_owned(),
        kernel: per_byte(of.cycles_per_byte(ladder.clock)),
        bars: others(ladder)
            .filter_map(|rung| {
                let own = rung.throughputs.iter().find(|own| own.size == of.size)?;
                let meaning = per_byte(own.cycles_per_byte(ladder.clock));
                Some(Bar { mode: rung.mode, multiple: ladder.cycle_gain(own)?, meaning })
            })
            .collect(),
    });
    Panel { title: "Host cycles for a byte, times fewer", groups: groups.collect(), paper: PAPER.cycles }
}

const fn colour(mode: Mode) -> &'static str {
    match mode {
        Mode::Kernel => "#8a8f98",
        Mode::Helper => "#7fb0de",
        Mode::Direct => "#1f6fb4",
        Mode::Dma => "#0c3763",
    }
}

impl Picture {
    fn add(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Height of a multiple.
    fn at(&self, multiple: f64) -> f64 {
        let span = f64::from(self.highest - self.lowest);
        let share = (multiple.max(1e-6).log2() - f64::from(self.lowest)) / span;
        BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn begin(&mut self, ladder: &Ladder) {
        let cores = format!("machines on core {}, host on core {}", ladder.cores.machines, ladder.cores.host_list());
        self.add(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {HEIGHT:.0}\" width=\"{WIDTH:.0}\" height=\"{HEIGHT:.0}\" \
             font-family=\"system-ui, -apple-system, 'Segoe UI', sans-serif\" font-size=\"13\" fill=\"#1c2430\">"
        ));
        self.add("<title>The same traffic between two virtual machines, rung by rung</title>");
        self.add(&format!("<rect width=\"{WIDTH:.0}\" height=\"{HEIGHT:.0}\" fill=\"#ffffff\"/>"));
        self.add(&format!(
            "<text x=\"{LEFT}\" y=\"36\" font-size=\"20\" font-weight=\"600\">The same traffic between two virtual machines, rung by rung</text>"
        ));
        self.add(&format!(
            "<text x=\"{LEFT}\" y=\"58\" fill=\"#5b6472\">Multiples of kernel mode (1 x), logarithmic; emulated machines, {cores}</text>"
        ));
    }

    fn panel(&mut self, panel: &Panel, left: f64, width: f64) {
        let right = left + width;
        self.add(&format!(
            "<text x=\"{left:.1}\" y=\"{:.1}\" font-size=\"15\" font-weight=\"600\">{}</text>",
            TOP - 18.0,
            panel.title
        ));
        for exponent in self.lowest..=self.highest {
            let (y, multiple) = (self.at(power(exponent)), power(exponent));
            let (stroke, weight) = if exponent == 0 { ("#8a8f98", 1.5) } else { ("#e4e7eb", 1.0) };
            self.add(&format!(
                "<line x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\" stroke=\"{stroke}\" stroke-width=\"{weight}\"/>"
            ));
            self.add(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#5b6472\" text-anchor=\"end\">{multiple}</text>",
                left - 6.0,
                y + 4.0
            ));
        }
        let mut start = left;
        for group in &panel.groups {
            self.group(group, start);
            start += GROUP;
        }
        let y = self.at(panel.paper);
        self.add(&format!(
            "<line x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\" stroke=\"#c2452d\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"/>"
        ));
        self.add(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#c2452d\" stroke=\"#ffffff\" stroke-width=\"3\" paint-order=\"stroke\">\
             paper, 2.2: {} x</text>",
            left + 2.0,
            y - 5.0,
            panel.paper
        ));
    }

    fn group(&mut self, group: &Group, start: f64) {
        let count = u32::try_from(group.bars.len()).unwrap_or(0);
        let pitch = BAR + 8.0;
        let middle = start + GROUP / 2.0;
        let mut x = middle - pitch * f64::from(count) / 2.0 + 4.0;
        let base = self.at(1.0);
        for Bar { mode, multiple, meaning } in &group.bars {
            let y = self.at(*multiple);
            let (top, height) = (y.min(base), (y - base).abs().max(1.0));
            let label = if y < base { y - 5.0 } else { y + 13.0 };
            self.add(&format!(
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{BAR}\" height=\"{height:.1}\" rx=\"2\" fill=\"{}\"><title>{mode}: {meaning}</title></rect>",
                colour(*mode)
            ));
            self.add(&format!(
                "<text x=\"{:.1}\" y=\"{label:.1}\" font-size=\"11\" text-anchor=\"middle\">{}</text>",
                x + BAR / 2.0,
                times(*multiple)
            ));
            x += pitch;
        }
        self.add(&format!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 20.0,
            group.name
        ));
        self.add(&format!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#5b6472\" text-anchor=\"middle\">1 x = {}</text>",
            BOTTOM + 37.0,
            group.kernel
        ));
    }

    fn legend(&mut self, ladder: &Ladder) {
        let mut y = BOTTOM + 70.0;
        for rung in others(ladder) {
            self.add(&format!(
                "<rect x=\"{LEFT:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{}\"/>",
                y - 10.5,
                colour(rung.mode)
            ));
            self.add(&format!(
                "<text x=\"{:.1}\" y=\"{y:.1}\" font-size=\"12\">{} (Andromeda {}): {}</text>",
                LEFT + 18.0,
                rung.mode,
                rung.mode.stage(),
                rung.mode.path()
            ));
            y += 19.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane::clock::CycleClock;
    use dataplane::histogram::Histogram;

    use super::super::frame::Size;
    use super::super::load::{RoundTrips, Throughput};
    use super::super::modes::Cores;
    use super::*;

    fn rung(mode: Mode, rate: f64, nanoseconds: u64) -> Rung {
        let throughputs = Size::ALL.map(|size| Throughput {
            size,
            packets_per_second: rate,
            frames: 1000,
            seconds: 1.0,
            host_seconds: 1.0 / rate,
            idle_seconds: 0.0,
            whole: 1,
        });
        let mut times = Histogram::new();
        times.record(nanoseconds);
        Rung { mode, throughputs: throughputs.into(), round_trips: RoundTrips { times } }
    }

    fn ladder() -> Ladder {
        let rungs =
            vec![rung(Mode::Kernel, 1e5, 20_000), rung(Mode::Helper, 5e4, 40_000), rung(Mode::Direct, 1e7, 1000)];
        let clock = CycleClock::with_rate(2_000_000_000);
        Ladder { clock, cores: Cores::for_tests(), rungs }
    }

    /// Every element that begins ends, in order.
    fn is_well_formed(text: &str) -> bool {
        let mut open = Vec::new();
        for tag in text.split('<').skip(1) {
            let Some((tag, _)) = tag.split_once('>') else { return false };
            let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap_or_default();
            if tag.starts_with('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            if !tag.matches('"').count().is_multiple_of(2) {
                return false;
            }
        }
        open.is_empty() && !text.contains('&')
    }

    #[test]
    fn the_picture_is_well_formed_and_has_a_bar_for_each_measurement() {
        let picture = draw(&ladder());
        assert!(is_well_formed(&picture), "{picture}");
        assert!(picture.starts_with("<svg ") && !is_well_formed(&picture.replace("</svg>", "")));
        // Two modes beside kernel mode, in three groups, one and three.
        assert_eq!(picture.matches(" x</text>").count() - 3, 2 * 7, "three of them are the paper's");
        assert!(picture.contains("direct: 10.000 Mpps") && picture.contains("1 x = 20.0 us"));
        assert!(picture.contains(">100 x<") && picture.contains(">0.5 x<") && picture.contains(">20 x<"));
    }

    #[test]
    fn all_bars_lie_on_the_scale() {
        let picture = draw(&ladder());
        for line in picture.lines().filter(|line| line.starts_with("<rect x") && line.contains("<title>")) {
            let number = |name: &str| -> f64 {
                let rest = line.split_once(&format!(" {name}=\"")).map_or("", |(_, rest)| rest);
                rest.split('"').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
            };
            let (top, height, left) = (number("y"), number("height"), number("x"));
            assert!(top >= TOP && top + height <= BOTTOM + 0.1, "{line}");
            assert!(left >= LEFT && left + BAR <= WIDTH, "{line}");
        }
    }
}
