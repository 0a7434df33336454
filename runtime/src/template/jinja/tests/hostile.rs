//! Templates that try to take all memory, all time or the whole native stack.

use super::*;

/// What a thread of a library's user may have for its stack; rendering must fit in half of it.
const STACK: usize = 1 << 20;

/// Renders in a thread with a small stack, so that too deep a recursion ends the test.
fn render_in_small_stack(source: String) -> Result<String, (u32, Fault)> {
    let names = serde_json::json!({"messages": [{"role": "user", "content": "hello"}], "x": null});
    let render = move || super::render(&source, &names);
    std::thread::Builder::new().stack_size(STACK).spawn(render).unwrap().join().unwrap()
}

#[track_caller]
fn check_stopped(source: impl Into<String>) {
    let source = source.into();
    let shown: String = source.chars().take(120).collect();
    match render_in_small_stack(source) {
        Err((_, Fault::Limit(_))) => {}
        other => panic!("{shown}: {:?}", other.map(|text| text.len())),
    }
}

#[test]
fn memory_is_bounded_whatever_makes_it_grow() {
    for source in [
        // Doubling, by every operator and filter that writes text.
        "{% set ns = namespace(s='a' * 32) %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = ns.s.join([ns.s, ns.s]) %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = s %}{% endfor %}",
        "{% macro two(s) %}{{ s }}{{ s }}{% endmacro %}{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = two(ns.s) %}{% endfor %}",
        "{% set ns = namespace(s='a' * 8000) %}{% for i in range(12) %}{% set ns.s = ns.s|replace('a', 'aaaaaaaa') %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(12) %}{% set ns.s = ns.s.replace('a', 'aaaaaaaa') %}{% endfor %}",
        "{% set ns = namespace(s=\"'\") %}{% for i in range(60) %}{% set ns.s = [ns.s]|string %}{% endfor %}",
        "{% set ns = namespace(s='\"') %}{% for i in range(60) %}{% set ns.s = ns.s|tojson %}{% endfor %}",
        "{% set ns = namespace(s='<') %}{% for i in range(60) %}{% set ns.s = (ns.s ~ '&')|e ~ ns.s|e %}{% endfor %}",
        "{% set ns = namespace(s='<') %}{% for i in range(60) %}{% set ns.s = ns.s|urlencode ~ '%%%%' ~ ns.s|urlencode %}{% endfor %}",
        "{% set ns = namespace(s='ΐ') %}{% for i in range(60) %}{% set ns.s = ns.s|upper ~ ns.s %}{% endfor %}",
        "{% set s = ('a\\n' * 100000)|indent(100000) %}",
        "{% set s = ('a\\n' * 100000)|indent('b' * 100000, true, true) %}",
        "{% set s = ('a' * 1000000)|list|join('a' * 100000) %}",
        "{% set s = ('a ' * 1000000).split() %}{% set t = ('b' * 100000).join(s) %}",
        // Widths and counts.
        "{{ 'a' * 99999999999 }}",
        "{{ [1] * 99999999999 }}",
        "{{ 'a'|center(9999999999) }}",
        "{{ 'a'.ljust(9999999999) }}{{ 'a'.zfill(9999999999) }}",
        "{{ 'a'.zfill(9999999999) }}",
        "{{ 'a\\tb'.expandtabs(9999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (9999999999, 1) }}",
        "{{ '%.999999999d' % 1 }}",
        "{{ '%.999999999f' % 1.5 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:.999999999f}'.format(1.5) }}",
        "{{ '{:x<{w}}'.format('a', w=999999999) }}",
        "{{ [[1]]|tojson(indent=999999999) }}",
        "{{ [[1, 1, 1, 1], [1, 1, 1, 1]]|tojson(indent='a' * 9999999) }}",
        "{{ [1, 2, 3, 4, 5, 6, 7, 8, 9]|tojson(separators=('a' * 9999999, 'b')) }}",
        "{{ strftime_now('%Y' * 10000000) }}{{ strftime_now('%Y' * 20000000) }}",
        "{{ strftime_now('%1000000000Y') }}",
        "{{ strftime_now('%99999999999999999999d') }}",
        "{{ [1]|batch(9999999999, 'x')|list }}",
        "{{ [1]|slice(9999999999)|list }}",
        // Lists.
        "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{% set q = ns.l|sort %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = ns.l * 2 %}{% endfor %}",
        "{% set ns = namespace(l=(1,)) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{% set s = ('a' * 9999999)|list %}",
        "{% set s = ('a' * 9999999).split('a') %}",
        "{% set s = ('a\\n' * 9999999).splitlines() %}",
        "{% set s = ('a' * 9999999)|batch(1)|list %}",
        "{% set s = range(100000)|map('string')|list %}{% set t = (s * 50)|sort|unique|list %}",
        // Kept for later.
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [namespace(a='x' * 4000)] %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99) %}{% macro f() %}{% endmacro %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99) %}{% set n = namespace(a=i) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99) %}{% set n = cycler(i) %}{% set m = joiner(j) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
        "{{ raise_exception('x' * 99999999) }}",
        "{{ ('x' * 99999999)[::-1] }}",
    ] {
        check_stopped(source);
    }
}

#[test]
fn time_is_bounded_whatever_is_repeated() {
    let started = std::time::Instant::now();
    let equal = "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}\
        {% set ns.m = [ns.m, ns.m] %}{% endfor %}";
    let tuples = equal
        .replace("l=[1], m=[1]", "l=(1,), m=(1,)")
        .replace("[ns.l, ns.l]", "(ns.l, ns.l)")
        .replace("[ns.m, ns.m]", "(ns.m, ns.m)");
    let dicts =
        equal.replace("[ns.l, ns.l]", "{'a': ns.l, 'b': ns.l}").replace("[ns.m, ns.m]", "{'a': ns.m, 'b': ns.m}");
    let text = "{% set s = 'a' * 9999999 %}{% set t = 'b' * 99999 %}{% for i in range(99999) %}";
    for source in [
        format!("{equal}{{% if ns.l == ns.m %}}x{{% endif %}}"),
        format!("{equal}{{% if ns.l < ns.m %}}x{{% endif %}}"),
        format!("{equal}{{% if ns.l in [ns.m] %}}x{{% endif %}}"),
        format!("{equal}{{{{ [ns.m].index(ns.l) }}}}"),
        format!("{equal}{{{{ ns.l }}}}"),
        format!("{equal}{{{{ ns.l|tojson }}}}"),
        format!("{equal}{{{{ [ns.l, ns.m]|sort }}}}"),
        format!("{dicts}{{% if ns.l == ns.m %}}x{{% endif %}}"),
        format!("{tuples}{{% set d = {{ns.l: 1}} %}}"),
        format!("{tuples}{{{{ [ns.l, ns.m]|unique|list }}}}"),
        format!("{text}{{% if t in s %}}{{% endif %}}{{% endfor %}}"),
        format!("{text}{{% set u = s.count('b') %}}{{% endfor %}}"),
        format!("{text}{{% set u = s|length %}}{{% endfor %}}"),
        format!("{text}{{% set u = s[5] %}}{{% endfor %}}"),
        format!("{text}{{% set u = s is lower %}}{{% endfor %}}"),
        format!("{text}{{% set u = s == s ~ '' %}}{{% endfor %}}"),
        format!("{text}{{% set u = s|wordcount %}}{{% endfor %}}"),
        format!("{text}{{% set u = (s|trim(t))|length %}}{{% endfor %}}"),
        format!("{text}{{% set u = s|int %}}{{% endfor %}}"),
        format!("{text}{{% set u = {{s: 1}} %}}{{% endfor %}}"),
        format!("{text}{{% set u = {{}}[s] %}}{{% endfor %}}"),
        format!("{text}{{% set u = s|truncate(5) %}}{{% endfor %}}"),
        format!("{text}{{% set u = s.startswith(s) %}}{{% endfor %}}"),
        format!("{text}{{% set u = strftime_now(s) %}}{{% endfor %}}"),
        format!("{text}{{% set u = (s ~ '%s') % 1 %}}{{% endfor %}}"),
        format!("{text}{{% set u = s|float %}}{{% endfor %}}"),
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in range(99999) %}{% set x = range(99999)|sum %}{% endfor %}".to_owned(),
        "{% for a in range(99999) %}{% set x = range(99999)|select('odd')|list|length %}{% endfor %}".to_owned(),
        "{% set l = range(99999)|list %}{% for a in l %}{% set x = -1 in l %}{% endfor %}".to_owned(),
        "{% set l = range(99999)|list %}{% for a in l %}{% for b in l %}{% break %}{% endfor %}{% endfor %}".repeat(99),
        "{% for a in range(99999) %}{% for b in [] %}{% else %}{% for c in range(999) %}{% endfor %}{% endfor %}{% endfor %}"
            .to_owned(),
    ] {
        check_stopped(source);
    }
    // Some forty templates that each run to their limit; seconds even without optimisation on a busy machine.
    assert!(started.elapsed().as_secs() < 600);
}

#[test]
fn the_stack_is_bounded_whatever_is_nested() {
    for source in [
        format!("{{{{ {}1 }}}}", "-".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "- ".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "+".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(50_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(100_000)),
        format!("{{{{ x{} }}}}", "[0]".repeat(100_000)),
        format!("{{{{ x{} }}}}", "[:]".repeat(100_000)),
        format!("{{{{ x{} }}}}", "()".repeat(100_000)),
        format!("{{{{ x{} }}}}", "|a".repeat(100_000)),
        format!("{{{{ x{} }}}}", "|a(1)".repeat(100_000)),
        format!("{{{{ {} }}}}", vec!["1"; 100_000].join("+")),
        format!("{{{{ {} }}}}", vec!["1"; 100_000].join("**")),
        format!("{{{{ {} }}}}", vec!["1"; 100_000].join(" and ")),
        format!("{{{{ {} }}}}", vec!["1"; 100_000].join(" or ")),
        format!("{{{{ {} }}}}", vec!["1"; 100_000].join(" if 0 else ")),
        format!("{{{{ {} }}}}", vec!["1"; 100_000].join(" if ")),
        format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(50_000), "]".repeat(50_000)),
        format!("{{{{ {}1{} }}}}", "{1:".repeat(50_000), "}".repeat(50_000)),
        format!("{{{{ {}1{} }}}}", "x(".repeat(50_000), ")".repeat(50_000)),
        format!("{{{{ {}1{} }}}}", "x[".repeat(50_000), "]".repeat(50_000)),
        format!("{{{{ {}1{} }}}}", "x|f(".repeat(50_000), ")".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "x is f ".repeat(50_000)),
        format!("{{{{ {}x{} }}}}", "x is f(".repeat(50_000), ")".repeat(50_000)),
        format!("{{% set {}x{} = 1 %}}", "(".repeat(50_000), ")".repeat(50_000)),
        format!("{}{}", "{% if 1 %}".repeat(50_000), "{% endif %}".repeat(50_000)),
        format!("{}{}", "{% for x in [1] %}".repeat(50_000), "{% endfor %}".repeat(50_000)),
        format!("{}{}", "{% macro f() %}".repeat(50_000), "{% endmacro %}".repeat(50_000)),
        format!("{}{}", "{% set x %}".repeat(50_000), "{% endset %}".repeat(50_000)),
        format!("{}{}", "{% filter upper %}".repeat(50_000), "{% endfilter %}".repeat(50_000)),
        format!("{}{}", "{% call f() %}".repeat(50_000), "{% endcall %}".repeat(50_000)),
        format!("{}{}", "{% with %}".repeat(50_000), "{% endwith %}".repeat(50_000)),
        format!("{}{}", "{% generation %}".repeat(50_000), "{% endgeneration %}".repeat(50_000)),
    ] {
        let shown: String = source.chars().take(60).collect();
        assert!(render_in_small_stack(source).is_err(), "{shown}");
    }
    let grow = |step: &str, end: &str| {
        format!("{{% set ns = namespace(l=[1], f=none) %}}{{% for i in range(100000) %}}{step}{{% endfor %}}{end}")
    };
    for source in [
        grow("{% set ns.l = [ns.l] %}", "{{ ns.l }}"),
        grow("{% set ns.l = (ns.l,) %}", "{{ ns.l }}"),
        grow("{% set ns.l = {'a': ns.l} %}", "{{ ns.l }}"),
        grow("{% set ns.l = dict(a=ns.l) %}", "{{ ns.l }}"),
        grow("{% set ns.l = {(ns.l, 1): 1}|list %}", "").replace("l=[1]", "l=(1,)"),
        grow("{% set ns.l = {'a': ns.l}.items() %}", ""),
        grow("{% set ns.l = [ns.l]|reverse %}", ""),
        grow("{% set ns.l = [[ns.l]|select] %}", ""),
        grow("{% set ns.l = [ns.l]|batch(1) %}", ""),
        grow("{% set ns.l = [ns.l].count %}", ""),
        grow("{% for y in [ns.l] %}{% set ns.l = [loop] %}{% endfor %}", ""),
        grow("{% for y in [ns.l] %}{% set ns.l = loop %}{% endfor %}", ""),
        grow("{% set ns.l = cycler([ns.l]).next() %}", ""),
        grow("{% set ns.l = joiner([ns.l]) %}", ""),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% macro f(x) %}{% call f(x) %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% macro f(x=f()) %}{% endmacro %}{{ f() }}".to_owned(),
        "{% macro f() %}{% if 1 %}{% for x in [1] %}{% filter upper %}{{ [f()]|map('string')|list }}{% endfilter %}{% endfor %}\
         {% endif %}{% endmacro %}{{ f() }}"
            .to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}".to_owned(),
    ] {
        let shown: String = source.chars().take(160).collect();
        match render_in_small_stack(source) {
            // What holds itself by its number does not nest.
            Ok(_) if shown.contains("joiner") => {}
            Err((_, Fault::Limit(_) | Fault::Failed(_))) => {}
            other => panic!("{shown}: {other:?}"),
        }
    }
}

#[test]
fn deep_but_allowed_templates_fit_in_the_stack() {
    // As deep as the limits allow, in the widest ways.
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(96), ")".repeat(96)),
        format!("{{{{ {}1{} }}}}", "[".repeat(90), "]".repeat(90)),
        format!("{{{{ {}1 }}}}", "-".repeat(90)),
        format!("{{{{ {} }}}}", vec!["1"; 140].join(" + ")),
        format!("{{{{ x{} }}}}", "|string".repeat(140)),
        format!("{}{}", "{% if 1 %}".repeat(90), "{% endif %}".repeat(90)),
        format!("{}{}", "{% for x in [1] %}".repeat(90), "{% endfor %}".repeat(90)),
    ] {
        let shown: String = source.chars().take(60).collect();
        render_in_small_stack(source).unwrap_or_else(|e| panic!("{shown}: {e:?}"));
    }
}
