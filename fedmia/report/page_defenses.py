"""The page of defences as a jinja2 template."""

DEFENSES = """{% extends "base" %}
{% block body %}
<h1>fedmia defences</h1>
<p class="headline">{{ headline }}</p>
{% if figure %}<figure>{{ figure }}<figcaption>Test accuracy over the AUC of the strongest attack,
passive or adaptive, with intervals over seeds. A line joins the defences that no other beats in
both at their vantage; dashed: guessing.</figcaption></figure>{% endif %}
<div class="scroll"><table class="small">
<thead><tr>{% for name in headings %}<th{% if loop.index0 not in words %} class="n"{% endif %}>
{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in cells %}<tr>
{% for cell in row %}<td{% if loop.index0 not in words %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="caption">{{ note }} {{ spread }}.</p>
<h2>How to read this</h2>
<ul>
<li>A low AUC of a passive attack says little: it may be blind to what the defence sends. The
adaptive one reads only what is sent, and simulates the defence in its shadows.</li>
<li>ε is claimed, in parentheses where the claim does not cover the vantage; all else is measured,
and only against the attacks that were run.</li>
<li>An attack without an update to look at (secure aggregation, a released model) has a vantage of
its own: compare it with the line without a defence at that vantage.</li>
</ul>
<h2>Configuration</h2>
<details><summary>what all runs share</summary><pre>{{ config }}</pre></details>
{% endblock %}
"""
