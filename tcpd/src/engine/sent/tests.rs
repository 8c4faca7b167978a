use super::*;

const B: Offset = 5 << 32;

fn fates(log: &SendLog) -> Vec<(u64, u64, Fate)> {
    log.iter()
        .map(|u| (u.start - B, u.end - B, u.fate))
        .collect()
}

#[test]
fn what_leaves_together_is_one_unit() {
    let mut log = SendLog::default();
    log.push(B, B + 10, 5);
    log.push(B + 10, B + 20, 5);
    log.push(B + 20, B + 30, 6);
    assert_eq!(log.len(), 2);
    let mut d = Delivery::default();
    log.advance(B + 15, &mut d);
    assert_eq!(d.bytes, 15);
    assert_eq!(d.newest.map(|u| u.sent_at), Some(5));
    assert_eq!(fates(&log).len(), 2);
    log.advance(B + 30, &mut d);
    assert!(log.is_empty());
    assert_eq!(d.newest_original.map(|u| u.sent_at), Some(6));
}

#[test]
fn acknowledgements_split_and_neighbours_join() {
    let mut log = SendLog::default();
    log.push(B, B + 100, 1);
    let mut d = Delivery::default();
    assert_eq!(log.sack(B + 20, B + 40, &mut d), 20);
    assert_eq!(log.sack(B + 30, B + 60, &mut d), 20);
    assert_eq!(
        fates(&log),
        [
            (0, 20, Fate::InFlight),
            (20, 60, Fate::Sacked),
            (60, 100, Fate::InFlight)
        ]
    );
    assert_eq!(log.mark_lost(B, B + 70), 30);
    assert_eq!(log.next_lost(), Some((B, B + 20)));
    log.resend(B, B + 20, 9);
    assert_eq!(log.next_lost(), Some((B + 60, B + 70)));
    assert_eq!((log.sacked(), log.lost()), (40, 10));
    let mut d = Delivery::default();
    log.advance(B + 65, &mut d);
    assert_eq!((d.bytes, d.not_lost), (25, 5));
    assert_eq!(d.newest.map(|u| u.rexmits), Some(1));
    assert_eq!(d.lowest_original, Some((B + 60, B + 65)));
    assert_eq!((log.sacked(), log.lost()), (0, 5));
    log.forget_losses();
    assert_eq!(fates(&log), [(65, 100, Fate::InFlight)]);
}

#[test]
fn a_rebuilt_log_knows_nothing_of_the_past() {
    let mut log = SendLog::default();
    let sacked = [(B + 10, B + 20), (B + 40, B + 50)];
    log.rebuild(B, B + 60, sacked.into_iter(), 77);
    assert_eq!((log.sacked(), log.lost(), log.len()), (20, 0, 5));
    let mut d = Delivery::default();
    log.advance(B + 15, &mut d);
    assert_eq!(d.newest.map(|u| (u.sent_at, u.rexmits)), Some((77, 1)));
    assert_eq!(d.newest_original, None);
}

#[test]
fn it_stays_small_whatever_the_peer_says() {
    let mut log = SendLog::default();
    for i in 0..10_000 {
        log.push(B + 10 * i, B + 10 * (i + 1), i);
        assert!(log.len() <= MAX_UNITS);
    }
    let mut d = Delivery::default();
    let mut new = 0;
    for i in 0..10_000 {
        new += log.sack(B + 10 * i + 5, B + 10 * i + 7, &mut d);
        assert!(log.len() <= MAX_UNITS);
    }
    assert_eq!(log.sacked(), new);
    for i in 10_000..20_000 {
        log.push(B + 10 * i, B + 10 * (i + 1), i);
        assert!(log.len() <= MAX_UNITS);
    }
    assert_eq!(log.end(), Some(B + 200_000));
}

// What counts as lost can always be sent again, else it would be for ever.
#[test]
fn a_full_log_can_be_worked_off() {
    let mut log = SendLog::default();
    let segments = 3 * MAX_UNITS as u64;
    log.push(B, B + 10 * segments, 1);
    let mut d = Delivery::default();
    for i in 0..segments {
        log.sack(B + 10 * i + 5, B + 10 * i + 10, &mut d);
    }
    assert!(log.len() <= MAX_UNITS - SPARE_UNITS);
    log.mark_lost(B, B + 10 * segments);
    let mut now = 2;
    while let Some((start, _)) = log.next_lost() {
        log.resend(start, start + 5, now);
        now += 1;
        assert!(log.len() <= MAX_UNITS && now < 4 * segments);
    }
    assert_eq!(log.lost(), 0);
}

// Against one entry a byte, with seeds.
#[test]
fn it_agrees_with_a_bytewise_model() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut log = SendLog::default();
        let mut model: Vec<(Fate, u64, u8)> = vec![];
        let mut una = 0usize;
        for now in 1..80 {
            let pick = |rng: &mut fastrand::Rng, len: usize| {
                let s = rng.usize(una..=len);
                (s, rng.usize(s..=len))
            };
            match rng.u8(..6) {
                0 | 1 => {
                    let n = rng.usize(1..30);
                    let s = model.len() as u64;
                    log.push(B + s, B + s + n as u64, now);
                    model.extend((0..n).map(|_| (Fate::InFlight, now, 0)));
                }
                2 => {
                    let (s, e) = pick(&mut rng, model.len());
                    let mut d = Delivery::default();
                    let new = log.sack(B + s as u64, B + e as u64, &mut d);
                    let fresh: Vec<_> = model[s..e]
                        .iter()
                        .filter(|m| m.0 != Fate::Sacked)
                        .copied()
                        .collect();
                    assert_eq!((new, d.bytes), (fresh.len() as u64, new), "seed {seed}");
                    let newest = fresh.iter().map(|m| m.1).max();
                    // Lost pieces that were joined count as the oldest of them.
                    let lost = fresh.iter().any(|m| m.0 == Fate::Lost);
                    let got = d.newest.map(|u| u.sent_at);
                    assert!(got == newest || (lost && got < newest), "seed {seed}");
                    let original = fresh.iter().filter(|m| m.2 == 0).map(|m| m.1).max();
                    let got = d.newest_original.map(|u| u.sent_at);
                    assert!(got == original || (lost && got < original), "seed {seed}");
                    model[s..e].iter_mut().for_each(|m| m.0 = Fate::Sacked);
                }
                3 => {
                    let (s, e) = pick(&mut rng, model.len());
                    log.mark_lost(B + s as u64, B + e as u64);
                    for m in model[s..e].iter_mut().filter(|m| m.0 == Fate::InFlight) {
                        m.0 = Fate::Lost;
                    }
                }
                4 => {
                    if let Some((s, e)) = log.next_lost() {
                        log.resend(s, e, now);
                        for m in &mut model[(s - B) as usize..(e - B) as usize] {
                            assert_eq!(m.0, Fate::Lost);
                            *m = (Fate::InFlight, now, m.2 + 1);
                        }
                    }
                }
                _ => {
                    let to = rng.usize(una..=model.len());
                    let mut d = Delivery::default();
                    log.advance(B + to as u64, &mut d);
                    una = to;
                }
            }
            let count = |f| model[una..].iter().filter(|m| m.0 == f).count() as u64;
            assert_eq!(log.sacked(), count(Fate::Sacked), "seed {seed}");
            assert_eq!(log.lost(), count(Fate::Lost), "seed {seed}");
            let mut at = B + una as u64;
            for unit in log.iter() {
                assert_eq!(unit.start, at);
                at = unit.end;
                for m in &model[(unit.start - B) as usize..(unit.end - B) as usize] {
                    assert_eq!(m.0, unit.fate, "seed {seed}");
                    if m.0 == Fate::InFlight {
                        assert_eq!(m.1, unit.sent_at, "seed {seed}");
                    }
                }
            }
            assert_eq!(at, B + model.len() as u64);
            let first = model[una..].iter().position(|m| m.0 == Fate::Lost);
            assert_eq!(
                log.next_lost().map(|(s, _)| (s - B) as usize),
                first.map(|i| i + una)
            );
        }
    }
}

// However many holes there are, one look for losses sees no more than so many units.
#[test]
fn a_look_for_losses_takes_bounded_steps() {
    let mut log = SendLog::default();
    for n in 0..20_000 {
        log.push(n * 10, n * 10 + 10, n);
    }
    let mut most = 0;
    for n in (1..20_000).step_by(2) {
        log.sack(n * 10, n * 10 + 10, &mut Delivery::default());
        let mut steps = 0;
        log.find_lost(|_| {
            steps += 1;
            Some(false)
        });
        most = most.max(steps);
    }
    assert!(log.len() <= MAX_UNITS);
    assert!((100..=MAX_UNITS).contains(&most), "{most} steps");
}
