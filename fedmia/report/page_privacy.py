"""The parts of the report's pages about ε, as jinja2 templates; see :mod:`fedmia.report.page`."""

CLAIMS = """
{% if claims or canaries %}
<h2>Claimed and measured</h2>
{% if run.privacy.get("alarm") %}
<div class="failure"><strong>Alarm.</strong> {{ run.privacy.alarm }}</div>
{% endif %}
{% if run.privacy.get("stopped") %}<p>Training stopped {{ run.privacy.stopped }}.</p>{% endif %}
{% if claims %}
<p>{{ covered }}</p>
<div class="scroll"><table class="small">
<thead><tr><th>part</th><th>unit</th><th>neighbours</th><th class="n">ε</th>
<th class="n">by RDP</th><th class="n">replacing one</th><th class="n">δ</th>
<th class="n">releases</th><th>holds against</th><th>noise</th></tr></thead>
<tbody>{% for claim, cells in claims %}<tr>
{% for cell in cells %}<td{% if loop.index in (4, 5, 6, 7, 8) %} class="n"{% endif %}>
{%- if claim is sameas covering and loop.first %}<strong>{{ cell }}</strong>{% else %}{{ cell }}
{%- endif %}</td>
{% endfor %}</tr>{% endfor %}</tbody></table></div>
{% for claim, _ in claims %}{% if claim.reasons %}
<ul class="reasons">{% for reason in claim.reasons %}<li><strong>{{ claim.part }}</strong>:
{{ reason }}</li>{% endfor %}</ul>
{% endif %}{% endfor %}
{% endif %}
<dl class="plain">
<dt>ε at least</dt><dd>{{ run.privacy.epsilon_lower_bound | number(2) }}
(about one record{% if run.privacy.confidence is not none %},
{{ run.privacy.confidence | percent(0) }} confidence{% endif %})</dd>
<dt>ceiling</dt><dd>{{ run.privacy.epsilon_ceiling | number(2) }}</dd>
{% if claims %}<dt>claimed of the same</dt>
<dd>{{ run.privacy.get("epsilon_comparable") | number(2) }}</dd>{% endif %}
{% for what, value in canaries %}<dt>{{ what }}</dt><dd>{{ value }}</dd>{% endfor %}
</dl>
{% if epsilons %}<figure>{{ epsilons }}<figcaption>ε after each round: what was claimed, and what
attacks would have proved with the transcript up to it. Each bound holds with its confidence alone.
The ceiling is the bound of an attack without an error.</figcaption></figure>{% endif %}
{% if canaries %}<p class="caption">Canary clients send random directions; the bound is about one
client taking part or not. No confidence is attached to estimates, and where normality is small
they mean nothing.</p>
{% if run.privacy.canary_clients.per_round %}<details><summary>canary clients by round</summary>
<table class="small"><thead><tr><th class="n">round</th><th class="n">ε at least</th></tr></thead>
<tbody>{% for entry in run.privacy.canary_clients.per_round %}<tr><td class="n">{{ entry.round }}
</td><td class="n">{{ entry.epsilon_lower_bound | number(2) }}</td></tr>{% endfor %}</tbody></table>
</details>{% endif %}
{% endif %}
{% endif %}
"""

TRADEOFF = """
{% if tradeoff %}
<h2>Privacy against utility</h2>
{% if tradeoff_figure %}<figure>{{ tradeoff_figure }}<figcaption>Leakage and accuracy by the ε that
is claimed, with intervals over seeds. At the right end: nothing is claimed. Hollow: the claim does
not cover the vantage. Dashed: guessing.</figcaption></figure>{% endif %}
<div class="scroll"><table class="small">
<thead><tr><th>attack</th><th class="n">ε claimed</th><th class="n">test acc. [low, high]</th>
<th class="n">AUC [low, high]</th><th class="n">{{ comparison.fpr | tpr_label }} [low, high]</th>
<th class="n">ε proved</th></tr></thead>
<tbody>{% for cells in tradeoff %}<tr>
{% for cell in cells %}<td{% if not loop.first %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="caption">{{ spread }}. ε claimed: the largest of the seeds; {{ uncovered }}.
ε proved: the mean over seeds of the lower bound of all attacks together.</p>
{% endif %}
"""
