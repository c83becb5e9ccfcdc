"""The report's pages as jinja2 templates.

They are Python strings because a Flower app bundle carries no template files.
"""

BASE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{% block body %}{% endblock %}
</body>
</html>
"""

OUTCOMES = """
{% macro outcomes(rows, first, fprs) %}
<div class="scroll"><table>
<thead><tr><th>{{ first }}</th><th class="n">AUC [CI]</th>
{% for fpr in fprs %}<th class="n">{{ fpr | tpr_label }}</th>{% endfor %}
<th class="n">bal. acc.</th><th class="n">advantage</th>
<th class="n">same-label AUC</th><th class="n">seconds</th></tr></thead>
<tbody>
{% for row in rows | ranked %}
<tr><td>{{ row.name }}</td>
<td class="n">{{ row.auc | number }} <small>{{ row.auc_ci | interval }}</small></td>
{% for fpr in fprs %}
<td class="n">{{ row.tpr_at_fpr.get(fpr) | percent }}
{% if row.tpr_ci.get(fpr) %}<small>{{ row.tpr_ci.get(fpr) | percents }}</small>{% endif %}</td>
{% endfor %}
<td class="n">{{ row.balanced_accuracy | number }}</td>
<td class="n">{{ row.advantage | number }}</td>
<td class="n">{{ row.auc_label_matched | number }}</td>
<td class="n">{{ row.seconds | number(2) }}</td>
</tr>
{% endfor %}
{% for reason, names in rows | reasons("failed") %}
<tr class="failed"><td>{{ names | join(", ") }}</td>
<td colspan="{{ 5 + fprs | length }}">failed: {{ reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if rows | adaptive %}<p>{{ rows | adaptive }}</p>{% endif %}
{% if rows | worse_than_chance %}<p class="warning">{{ rows | worse_than_chance }}</p>{% endif %}
{% with unserved = rows | reasons("not_applicable") %}
{% if unserved %}<ul class="reasons">{% for reason, names in unserved %}
<li>not applicable: <strong>{{ names | join(", ") }}</strong>: {{ reason }}</li>{% endfor %}</ul>
{% endif %}{% endwith %}
{% endmacro %}
"""

RUN = """{% extends "base" %}
{% from "outcomes" import outcomes %}
{% block body %}
<h1>fedmia report</h1>
<p class="headline">{{ headline }}</p>
<p class="setup">{{ setup | join(" · ") }} · seed {{ run.seed }}</p>
<p class="created">{{ run.created }} · <code>{{ run.key }}</code></p>
{% if run.status == "failed" %}
<div class="failure"><strong>This run failed.</strong> {{ run.reason }}</div>
{% endif %}
{% for warning in warnings %}
<div class="warning"><strong>Caution.</strong> {{ warning }}</div>
{% endfor %}
<dl class="tiles">
<div><dt>strongest attack, AUC</dt><dd>{{ (best.auc if best else none) | number }}
<small>{% if best %}{{ best.auc_ci | interval }} {{ best.name }}{% endif %}</small></dd></div>
<div><dt>its {{ fpr | tpr_label }}</dt><dd>
{{ (best.tpr_at_fpr.get(fpr) if best else none) | percent }}
<small>guessing would give {{ fpr | float | percent }}</small></dd></div>
<div><dt>test accuracy</dt><dd>{{ run.utility.test_accuracy | number }}
<small>training {{ run.utility.train_accuracy | number }}</small></dd></div>
<div><dt>ε at least</dt><dd>{{ run.privacy.epsilon_lower_bound | number(2) }}
<small>ceiling {{ run.privacy.epsilon_ceiling | number(2) }}
{% if run.privacy.epsilon_claimed is not none %}
 · claimed {{ run.privacy.epsilon_claimed | number(2) }}{% endif %}</small></dd></div>
</dl>
{% if notes %}<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}

{% if run.get("guards") %}
<h2>Guards</h2>
<ul class="guards">{% for guard in run.guards %}
<li class="{{ guard.status }}"><b>{{ marks[guard.status] }} {{ guard.status }}</b>
<span><strong>{{ guard.name }}</strong>: {{ guard.detail }}</span></li>{% endfor %}</ul>
{% endif %}

{% include "claims" %}

<h2>Attacks</h2>
{{ outcomes(run.attacks, "attack", fprs) }}
<p class="caption">{% if vantages %}Vantage: {{ vantages | join(", ") }}. {% endif %}Members of a
target client against records held out from everybody. A dash is a rate that this many held-out
records cannot resolve.</p>
{% if calibrated %}
<details><summary>at a threshold that was set beforehand</summary>
<div class="scroll"><table class="small">
<thead><tr><th>attack</th><th class="n">FPR achieved</th><th class="n">TPR</th>
{% for prior in priors %}<th class="n">PPV, {{ prior | float | percent }} members</th>{% endfor %}
</tr></thead>
<tbody>{% for row in calibrated %}<tr><td>{{ row.name }}</td>
<td class="n">{{ row.achieved_fpr[nominal] | percent(2) }}</td>
<td class="n">{{ row.achieved_tpr[nominal] | percent }}</td>
{% for prior in priors %}<td class="n">{{ row.ppv.get(prior) | percent }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="caption">Nominal FPR {{ nominal | float | percent }}: the threshold is set on one half of
the held-out records and judged on the other. PPV: the share of members among the accused, where
that many of all who are asked about are members.</p></details>
{% endif %}

<h2>Blind baselines</h2>
{{ outcomes(run.baselines, "baseline", fprs) }}
<p class="caption">What can be guessed without seeing any training. Where an interval does not
cover 0.5, the populations differ for a reason other than membership.</p>

{% if roc or per_round %}
<h2>Curves</h2>
<div class="figures">
{% if roc %}<figure>{{ roc }}<figcaption>ROC, both axes logarithmic, from one over the number of
held-out records. Dashed: guessing.{% if measured > most_curves %} The {{ most_curves }} highest
AUCs of {{ measured }}.{% endif %}</figcaption></figure>{% endif %}
{% if per_round %}<figure>{{ per_round }}<figcaption>Each attack given the transcript up to a round,
and the accuracy of the global model after it.</figcaption></figure>{% endif %}
</div>
{% endif %}

{% if histograms %}
<h2>Scores</h2>
<div class="figures">
{% for histogram in histograms %}<figure>{{ histogram }}</figure>{% endfor %}
</div>
<p class="caption">Each population's shares add up to 100%.
{%- if measured > most_panels %} The {{ most_panels }} highest AUCs of {{ measured }}.
{% endif %}</p>
{% endif %}

<h2>Populations</h2>
<dl class="plain">
<dt>members</dt><dd>{{ run.candidates.members }}
{% if run.candidates.null_run %}(null run: nobody trained on them){% endif %}</dd>
<dt>held out</dt><dd>{{ run.candidates.nonmembers }}</dd>
<dt>other members</dt><dd>{{ run.candidates.other_members }}</dd>
<dt>auxiliary</dt><dd>{{ run.candidates.auxiliary }}</dd>
<dt>candidates SHA-256</dt><dd><code>{{ run.candidates.sha256 }}</code></dd>
<dt>split SHA-256</dt><dd><code>{{ run.candidates.split_sha256 }}</code></dd>
</dl>

{% if whose %}
<h2>Which client?</h2>
<div class="scroll"><table>
<thead><tr><th>attack</th><th class="n">AUC against held out</th>
<th class="n">AUC against other clients' members</th>
<th class="n">members given to their client</th></tr></thead>
<tbody>{% for row in whose %}<tr><td>{{ row.name }}</td>
<td class="n">{{ row.auc | number }} {{ row.auc_ci | interval }}</td>
<td class="n">{% if row.other_members %}{{ row.other_members.auc | number }}
{{ row.other_members.auc_ci | interval }}{% else %}{{ none | number }}{% endif %}</td>
<td class="n">{{ row.get("source_accuracy") | percent }}
{% if row.get("source_accuracy_ci") %}{{ row.source_accuracy_ci | percents }}{% endif %}</td></tr>
{% endfor %}
{% if sources %}
<tr><th>class histograms alone</th><td></td><td></td>
<th class="n">{{ run.candidates.get("source_blind") | percent }}</th></tr>
<tr><th>guessing</th><td class="n">0.500</td><td class="n">0.500</td>
<th class="n">{{ sources[0].source_chance | percent }}</th></tr>
{% endif %}</tbody>
</table></div>
<p class="caption">First: was the record trained on at all. Second: does the attack tell the
target's members from those of other clients; near 0.5 it says that a record was in the federation,
not whose it is. Third: each member is given to the client under which it scores highest (source
inference); class histograms give it to the client that holds most records of its label.</p>
{% endif %}

{% if targets %}
<h2>Per target client</h2>
<div class="scroll"><table class="narrow">
<thead><tr><th>client</th>{% for row in targeted %}<th class="n">{{ row.name }}</th>{% endfor %}
</tr></thead>
<tbody>
{% for client, cells in targets %}<tr><td>{{ client }}</td>
{% for cell in cells %}<td class="n">{% if cell %}{{ cell.auc | number }}
<small>{{ cell.auc_ci | interval(2) }}</small>{% else %}{{ none | number }}{% endif %}</td>
{% endfor %}</tr>{% endfor %}
<tr><th>mean</th>{% for row in targeted %}<th class="n">{{ row.auc_target_mean | number }}</th>
{% endfor %}</tr>
</tbody></table></div>
<p class="caption">AUC of one client's members against the same held-out records.
{% if measured > most_panels %}The {{ most_panels }} highest AUCs of {{ measured }}.
{% endif %}</p>
{% endif %}

{% include "suspicion" %}

<h2>Faults</h2>
{% if faults %}<ul>{% for fault in faults %}<li>{{ fault }}</li>{% endfor %}</ul>
{% else %}<p>None.</p>{% endif %}

<h2>How to read this</h2>
<ul>
<li><strong>AUC</strong>: the chance that a random member scores higher than a random held-out
record. 0.5 is guessing, 1 is certainty.</li>
<li><strong>TPR at a low FPR</strong>: the share of members found when hardly anybody is accused
wrongly. An attack can be poor on average and still certain about a few.</li>
<li><strong>ε at least</strong>: what the attacks proved about this training, never more than the
ceiling, which a perfect attack on as few records would reach. It is no upper bound: a low
value does not show that the training is private.</li>
<li>The strongest attack was picked after the fact among {{ measured }}; its interval does not
account for that, the first sentence of this page does. One run is one draw: compare settings over
several seeds.</li>
<li>No attack here succeeding means that these attacks from this vantage did not.</li>
</ul>

<h2>Configuration</h2>
<details open><summary>resolved configuration</summary><pre>{{ config }}</pre></details>

<h2>Versions and timing</h2>
<dl class="plain">
{% for name, version in run.versions.items() %}<dt>{{ name }}</dt><dd>{{ version }}</dd>{% endfor %}
{% for name, words in timing %}<dt>{{ name }}</dt><dd>{{ words }}</dd>{% endfor %}
{% if sent %}<dt>sent</dt><dd>{{ sent }}</dd>{% endif %}
</dl>
{% endblock %}
"""

COMPARISON = """{% extends "base" %}
{% block body %}
<h1>fedmia comparison</h1>
<p class="headline">{{ headline }}</p>
<p class="created">{{ span }}</p>
{% for warning in warnings %}
<div class="warning"><strong>Caution.</strong> {{ warning }}</div>
{% endfor %}

<h2>Attacks by configuration</h2>
<div class="scroll"><table>
<thead><tr>{% for setting in comparison.settings %}<th>{{ setting }}</th>{% endfor %}
<th>attack</th><th>vantage</th><th class="n">seeds</th><th class="n">AUC [low, high]</th>
<th class="n">{{ comparison.fpr | tpr_label }}</th><th class="n">balanced acc.</th>
<th class="n">test acc.</th><th class="n">blind AUC</th>
{% if tradeoff %}<th class="n">ε claimed</th>{% endif %}</tr></thead>
<tbody>
{% for cells in rows %}<tr>
{% for cell in cells %}<td{% if loop.index > text_columns %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}
</tbody></table></div>
<p class="caption">{{ spread }}. Blind AUC: the highest baseline of each run, averaged;
{{ confounded }}.</p>
{% if unmeasured %}<p>Not measured:</p>
<ul>{% for line in unmeasured %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}

{% if differences %}
<h2>Differences to {{ first or "the configuration under “than”" }}</h2>
<div class="scroll"><table>
<thead><tr>{% for setting in comparison.settings %}<th>{{ setting }}</th>{% endfor %}
<th>attack</th><th>vantage</th>{% if not first %}<th>than</th>{% endif %}
<th class="n">seeds</th><th class="n">AUC [low, high]</th>
<th class="n">{{ comparison.fpr | tpr_label }} [low, high]</th></tr></thead>
<tbody>{% for cells in differences %}<tr>
{% for cell in cells %}
<td{% if loop.index > text_columns + (not first) %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</tbody>
</table></div>
<p class="caption">{{ paired | capitalize }}.</p>
{% endif %}

{% if forest %}
<figure>{{ forest }}<figcaption>AUC with its interval. Orange: confounded.</figcaption></figure>
{% endif %}

{% include "tradeoff" %}

<h2>Runs</h2>
<div class="scroll"><table>
<thead><tr><th>key</th><th class="n">seed</th><th>created</th><th>status</th>
<th class="n">test acc.</th><th class="n">ε at least</th><th class="n">ceiling</th>
<th class="n">ε claimed</th></tr></thead>
<tbody>{% for run in runs %}<tr class="{{ run.status }}"><td><code>{{ run.key }}</code></td>
<td class="n">{{ run.seed }}</td><td>{{ run.created }}</td>
<td>{{ run.status }}{% if run.reason %}: {{ run.reason }}{% endif %}</td>
<td class="n">{{ run.utility.test_accuracy | number }}</td>
<td class="n">{{ run.privacy.epsilon_lower_bound | number(2) }}</td>
<td class="n">{{ run.privacy.epsilon_ceiling | number(2) }}</td>
<td class="n">{{ run.privacy.epsilon_claimed | number(2) }}</td></tr>{% endfor %}</tbody>
</table></div>

<h2>Configuration shared by all runs</h2>
<pre>{{ config }}</pre>
{% endblock %}
"""
