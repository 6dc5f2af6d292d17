// The names this application uses for the shapes in the service's OpenAPI document.
import type { components } from "./schema";

type Schemas = components["schemas"];

/** A job as lists and events carry it: without its spec. */
export type Job = Schemas["JobSummary"];
/** A job as its own page has it. */
export type JobWithSpec = Schemas["Job"];
export type Phase = Job["phase"];
export type Last = Schemas["Last"];
export type Attempt = Schemas["Attempt"];
export type Logs = Schemas["LogText"];
export type Metrics = Schemas["Metrics"];
export type MetricSeries = Schemas["Series"];
/** Where an attempt that trained began. */
export type AttemptBegun = Schemas["AttemptBegun"];
/** What is trained on, in plain words. */
export type TrainingData = Schemas["TrainingData"];
export type StepTime = Schemas["StepTime"];
/** One rank's step, in its parts. */
export type StepBar = Schemas["StepBar"];
export type PartName = Schemas["StepPart"]["name"];
export type RankFigures = Schemas["RankFigures"];
/** The data of a job's events, by the event's name. */
export type JobEvents = Schemas["JobEvent"];
export type JobsChanged = Schemas["JobsChanged"];
/** One thing that happened to a job. */
export type TimelineEntry = Schemas["TimelineEntry"];
export type JobPlacement = Schemas["JobPlacement"];
export type NodePlacement = Schemas["NodePlacement"];
export type RankPlan = Schemas["RankPlan"];
export type ThreadVerdict = Schemas["ThreadVerdict"];
/** How many ranks came to which result. */
export type Verdicts = Schemas["Verdicts"];
export type Result = NonNullable<Job["verdict"]>;
