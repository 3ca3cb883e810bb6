"""Names: the files' columns, the features made of them, and the tasks."""

# In the order of the files, which have no header (`census-income.names`).
COLUMNS = (
    "age",
    "class_of_worker",
    "detailed_industry_recode",
    "detailed_occupation_recode",
    "education",
    "wage_per_hour",
    "enroll_in_edu_inst_last_wk",
    "marital_stat",
    "major_industry_code",
    "major_occupation_code",
    "race",
    "hispanic_origin",
    "sex",
    "member_of_a_labor_union",
    "reason_for_unemployment",
    "full_or_part_time_employment_stat",
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "tax_filer_stat",
    "region_of_previous_residence",
    "state_of_previous_residence",
    "detailed_household_and_family_stat",
    "detailed_household_summary_in_household",
    "instance_weight",
    "migration_code_change_in_msa",
    "migration_code_change_in_reg",
    "migration_code_move_within_reg",
    "live_in_this_house_1_year_ago",
    "migration_prev_res_in_sunbelt",
    "num_persons_worked_for_employer",
    "family_members_under_18",
    "country_of_birth_father",
    "country_of_birth_mother",
    "country_of_birth_self",
    "citizenship",
    "own_business_or_self_employed",
    "fill_inc_questionnaire_for_veterans_admin",
    "veterans_benefits",
    "weeks_worked_in_year",
    "year",
    "income",
)

TASKS = ("income", "never_married", "college")
"""Labels: income above 50,000 dollars, never married, at least a college degree."""

NUMERIC_COLUMNS = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "num_persons_worked_for_employer",
    "weeks_worked_in_year",
)
"""Continuous features: years, cents (wage), dollars, a size class, weeks."""

REMOVED_COLUMNS = ("education", "marital_stat", "instance_weight", "income")
"""What labels are made of, and the survey weight, which is not a feature."""

CATEGORICAL_COLUMNS = tuple(
    name for name in COLUMNS if name not in NUMERIC_COLUMNS + REMOVED_COLUMNS
)
"""Nominal features, among them those written as numbers (codes and the year)."""

INCOME_LEVELS = {b"- 50000.": 0.0, b"50000+.": 1.0}

NEVER_MARRIED = b"Never married"

COLLEGE_DEGREES = frozenset(
    {
        b"Associates degree-academic program",
        b"Associates degree-occup /vocational",
        b"Bachelors degree(BA AB BS)",
        b"Masters degree(MA MS MEng MEd MSW MBA)",
        b"Prof school degree (MD DDS DVM LLB JD)",
        b"Doctorate degree(PhD EdD)",
    }
)
