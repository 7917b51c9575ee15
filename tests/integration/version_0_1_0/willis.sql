BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0007');
CREATE TABLE association (
	id INTEGER NOT NULL, 
	receiver VARCHAR(80) NOT NULL, 
	calling_ae VARCHAR(16) NOT NULL, 
	opened_at DATETIME NOT NULL, 
	closed_at DATETIME, 
	closed VARCHAR(16), 
	PRIMARY KEY (id)
);
INSERT INTO "association" VALUES(1,'receiver','PACS','2026-01-02 03:04:05.000000','2026-01-02 03:04:05.000000','released');
INSERT INTO "association" VALUES(2,'receiver','PACS','2026-01-02 03:05:09.000000','2026-01-02 03:05:09.000000','released');
INSERT INTO "association" VALUES(3,'receiver','PACS','2026-01-02 03:05:09.000000','2026-01-02 03:05:09.000000','released');
CREATE TABLE commitment (
	id INTEGER NOT NULL, 
	transaction_uid VARCHAR(64) NOT NULL, 
	delivery_id INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	attempts INTEGER NOT NULL, 
	asked_at DATETIME, 
	next_attempt_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(delivery_id) REFERENCES delivery (id), 
	UNIQUE (transaction_uid)
);
INSERT INTO "commitment" VALUES(1,'2.25.5',1,'2026-01-02 03:04:09.000000',0,NULL,'2026-01-02 03:04:09.000000');
CREATE TABLE commitment_request (
	id INTEGER NOT NULL, 
	transaction_uid VARCHAR(64) NOT NULL, 
	calling_ae VARCHAR(16) NOT NULL, 
	instances JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	attempts INTEGER NOT NULL, 
	next_attempt_at DATETIME, 
	last_error TEXT NOT NULL, 
	answered_at DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (calling_ae, transaction_uid)
);
INSERT INTO "commitment_request" VALUES(1,'2.25.6','CT1','[["1.2.840.10008.5.1.4.1.1.2", "2.25.11.1"]]','2026-01-02 03:04:09.000000',0,'2026-01-02 03:04:14.000000','',NULL);
CREATE TABLE delivery (
	id INTEGER NOT NULL, 
	report_id INTEGER NOT NULL, 
	destination TEXT NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	attempts INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	next_attempt_at DATETIME, 
	last_error TEXT NOT NULL, 
	delivered_at DATETIME, committed_at DATETIME, object_id INTEGER, 
	PRIMARY KEY (id), 
	FOREIGN KEY(report_id) REFERENCES report (id)
);
INSERT INTO "delivery" VALUES(1,1,'PACS','delivered',1,'2026-01-02 03:04:08.000000',NULL,'','2026-01-02 03:04:09.000000',NULL,NULL);
INSERT INTO "delivery" VALUES(2,1,'ARCHIVE','pending',0,'2026-01-02 03:04:08.000000','2026-01-02 03:04:08.000000','',NULL,NULL,NULL);
INSERT INTO "delivery" VALUES(3,1,'PACS','pending',0,'2026-01-02 03:04:08.000000','2026-01-02 03:04:08.000000','',NULL,NULL,1);
CREATE TABLE instance (
	id INTEGER NOT NULL, 
	sop_instance_uid VARCHAR(64) NOT NULL, 
	series_id INTEGER NOT NULL, 
	association_id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	header JSON NOT NULL, 
	received_at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(association_id) REFERENCES association (id), 
	FOREIGN KEY(series_id) REFERENCES series (id), 
	UNIQUE (sop_instance_uid)
);
INSERT INTO "instance" VALUES(1,'2.25.11.1',1,1,'instances/0d/0d4ff3815164b18f4ee02f5a71996202/b7835430a18dd2c703676fcaa16c4df4-a8a9e7a5f895ad90.dcm','a8a9e7a5f895ad90fceab135955c4419bae585686e345cf44ed7f0cae5dfbc47',1362,'{"sop_instance_uid": "2.25.11.1", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.11", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 100.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 1, "has_pixels": true}','2026-01-02 03:04:05.000000');
INSERT INTO "instance" VALUES(2,'2.25.11.2',1,1,'instances/0d/0d4ff3815164b18f4ee02f5a71996202/1c3ed93b2d7f8f8a1249b74e58c02f11-b732d4ca4e5fce66.dcm','b732d4ca4e5fce669d5ad05d8e02d4fe9d26170e24cb25a8ead997fe4ed999df',1362,'{"sop_instance_uid": "2.25.11.2", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.11", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 101.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 2, "has_pixels": true}','2026-01-02 03:04:05.000000');
INSERT INTO "instance" VALUES(3,'2.25.11.3',1,1,'instances/0d/0d4ff3815164b18f4ee02f5a71996202/0884aaf8a778820717fa5b0cc015f142-5e8edadeb1c7bfa6.dcm','5e8edadeb1c7bfa6a617bc3b7d8a1fa2f0607ae0e5cdf349825ee9451b52a831',1362,'{"sop_instance_uid": "2.25.11.3", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.11", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 102.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 3, "has_pixels": true}','2026-01-02 03:04:05.000000');
INSERT INTO "instance" VALUES(4,'2.25.12.1',2,2,'instances/85/85922dfdda676faf631b30280c3dc1ad/e9b2a67b680840ab28ce1a3df8d2addb-eb41926261e806dc.dcm','eb41926261e806dc36164788fc509f14fa4518633f2347d9b19a67cf8925cd01',1362,'{"sop_instance_uid": "2.25.12.1", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.12", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 100.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 1, "has_pixels": true}','2026-01-02 03:05:09.000000');
INSERT INTO "instance" VALUES(5,'2.25.12.2',2,2,'instances/85/85922dfdda676faf631b30280c3dc1ad/61ab20413612f35e0b2ba17dc5629241-82fb362b6c753ae0.dcm','82fb362b6c753ae0991d1bd96d9800213b22500572629c946f1fa1ee0cf94d66',1362,'{"sop_instance_uid": "2.25.12.2", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.12", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 101.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 2, "has_pixels": true}','2026-01-02 03:05:09.000000');
INSERT INTO "instance" VALUES(6,'2.25.12.3',2,2,'instances/85/85922dfdda676faf631b30280c3dc1ad/cdfdf3bc80bd905e4dd09001daf92a39-76d55f98124e6949.dcm','76d55f98124e69491225764bb70a2142cea0cf43d40f5fd26819f37b25e49fe8',1362,'{"sop_instance_uid": "2.25.12.3", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.12", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 102.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 3, "has_pixels": true}','2026-01-02 03:05:09.000000');
INSERT INTO "instance" VALUES(7,'2.25.13.1',3,3,'instances/91/91aea2dd851861f5ab58abb950417c16/4ef08b57f768479e1e1647986b40af64-131e366e42c4ea91.dcm','131e366e42c4ea91dd482e91bb1161b7981d585dd904e009eb7f62e07241029e',1362,'{"sop_instance_uid": "2.25.13.1", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.13", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 100.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 1, "has_pixels": true}','2026-01-02 03:05:09.000000');
INSERT INTO "instance" VALUES(8,'2.25.13.2',3,3,'instances/91/91aea2dd851861f5ab58abb950417c16/0d3528d7af0684d5a866e7aa60f6895c-ffeaefdfb7523843.dcm','ffeaefdfb7523843bb64006c1d35f996c2214f2decd34588a525ddfd3f4e84a8',1362,'{"sop_instance_uid": "2.25.13.2", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.13", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 101.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 2, "has_pixels": true}','2026-01-02 03:05:09.000000');
INSERT INTO "instance" VALUES(9,'2.25.13.3',3,3,'instances/91/91aea2dd851861f5ab58abb950417c16/03c0329acb94ee5619931d80ec9e5283-5cb3cb71495fa16c.dcm','5cb3cb71495fa16c2542c70d7c8d851a9f4b7156363f918f52a03b2d695cf293',1362,'{"sop_instance_uid": "2.25.13.3", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "series_instance_uid": "2.25.13", "study_instance_uid": "2.25.1001", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "patient_id": "P-0001", "issuer_of_patient_id": "", "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20260101", "study_time": "101500", "study_id": "S1", "modality": "CT", "series_number": 3, "series_description": "", "convolution_kernel": "", "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"], "acquisition_key": "", "frame_of_reference_uid": "2.25.1003", "position_mm": [-20.0, -30.0, 102.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "number_of_frames": 1, "instance_number": 3, "has_pixels": true}','2026-01-02 03:05:09.000000');
CREATE TABLE removal (
	id INTEGER NOT NULL, 
	series_instance_uid VARCHAR(64) NOT NULL, 
	case_id INTEGER NOT NULL, 
	reason VARCHAR(16) NOT NULL, 
	outcome VARCHAR(16), 
	report_uid VARCHAR(64), 
	instance_count INTEGER NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	begun_at DATETIME NOT NULL, 
	forgotten_at DATETIME, 
	ended_at DATETIME, 
	PRIMARY KEY (id)
);
CREATE TABLE report (
	id INTEGER NOT NULL, 
	series_id INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	sop_instance_uid VARCHAR(64) NOT NULL, 
	path TEXT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	model TEXT NOT NULL, 
	predecessor_uid VARCHAR(64), 
	lesions JSON NOT NULL, 
	top_location TEXT, 
	diameter_mm DOUBLE, 
	created_at DATETIME NOT NULL, 
	volume_seconds FLOAT, 
	inference_seconds FLOAT, 
	report_seconds FLOAT, 
	p_left_infraclinoid_ica DOUBLE, 
	p_right_infraclinoid_ica DOUBLE, 
	p_left_supraclinoid_ica DOUBLE, 
	p_right_supraclinoid_ica DOUBLE, 
	p_left_mca DOUBLE, 
	p_right_mca DOUBLE, 
	p_acom DOUBLE, 
	p_left_aca DOUBLE, 
	p_right_aca DOUBLE, 
	p_left_pcom DOUBLE, 
	p_right_pcom DOUBLE, 
	p_basilar_tip DOUBLE, 
	p_other_posterior DOUBLE, 
	p_present DOUBLE, 
	PRIMARY KEY (id), 
	FOREIGN KEY(series_id) REFERENCES series (id), 
	UNIQUE (sop_instance_uid)
);
INSERT INTO "report" VALUES(1,1,1,'2.25.77','reports/e6/e6cdee82bc49a81292f7cf722994664f-8557ad89a7bf1154.dcm','8557ad89a7bf11540058a4a7d23760ea49d01d0fd3f800da95ae566246d9b843',27,'positive','','','0.1.0',NULL,'[{"location": "Left Middle Cerebral Artery", "probability": 0.9, "centre_lps_mm": [1.0, -2.0, 3.5], "diameter_mm": 6.5}]','Left Middle Cerebral Artery',6.5,'2026-01-02 03:04:08.000000',1.5,2.5,0.25,0.01,0.02,0.03,0.04,0.05,0.06,0.07,0.08,0.09,0.1,0.11,0.12,0.13,0.9);
CREATE TABLE report_object (
	id INTEGER NOT NULL, 
	report_id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	sop_instance_uid VARCHAR(64) NOT NULL, 
	path TEXT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(report_id) REFERENCES report (id), 
	UNIQUE (sop_instance_uid)
);
INSERT INTO "report_object" VALUES(1,1,'summary_image','2.25.78','reports/01/01179a7961090f35fbaed589181f73f2-601ecfc77747fd28.dcm','601ecfc77747fd289e7ae6f30c0e730bd1347a45f749e628a27868f2ebb7c45f',19);
CREATE TABLE series (
	id INTEGER NOT NULL, 
	series_instance_uid VARCHAR(64) NOT NULL, 
	study_instance_uid VARCHAR(64) NOT NULL, 
	patient_id TEXT NOT NULL, 
	issuer_of_patient_id TEXT NOT NULL, 
	patient_name TEXT NOT NULL, 
	accession_number TEXT NOT NULL, 
	study_date TEXT NOT NULL, 
	modality TEXT NOT NULL, 
	series_description TEXT NOT NULL, 
	acquisition_key TEXT NOT NULL, 
	calling_ae VARCHAR(16) NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	outcome VARCHAR(16), 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	conflicts JSON NOT NULL, 
	revision INTEGER NOT NULL, 
	instance_count INTEGER NOT NULL, 
	expected_count INTEGER, 
	count_asked_at DATETIME, 
	attempts INTEGER NOT NULL, 
	claim_token VARCHAR(32), 
	claimed_by VARCHAR(80), 
	lease_until DATETIME, 
	report_id INTEGER, 
	first_instance_at DATETIME NOT NULL, 
	last_instance_at DATETIME NOT NULL, 
	ready_at DATETIME, 
	claimed_at DATETIME, 
	ended_at DATETIME, p_present DOUBLE, priority INTEGER GENERATED ALWAYS AS (CASE
    WHEN outcome = 'positive' THEN 1
    WHEN outcome = 'not_analysed' THEN 2
    WHEN stage IN ('receiving', 'ready', 'analysing') THEN 3
    WHEN outcome = 'negative' THEN 4
    ELSE 5
END) VIRTUAL, p_absent DOUBLE GENERATED ALWAYS AS (1.0 - COALESCE(p_present, 0.0)) VIRTUAL, promised_at DATETIME, sent_again_at DATETIME, name_key TEXT DEFAULT '' NOT NULL, study_time TEXT DEFAULT '' NOT NULL, study_id TEXT DEFAULT '' NOT NULL, series_number INTEGER, retrievals INTEGER DEFAULT '0' NOT NULL, retrieve_until DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (series_instance_uid)
);
INSERT INTO "series" VALUES(1,'2.25.11','2.25.1001','P-0001','','Doe^Jane','A-77','20260101','CT','','','PACS','reported','positive','','','count','[]',1,3,NULL,NULL,1,NULL,NULL,NULL,1,'2026-01-02 03:04:05.000000','2026-01-02 03:04:05.000000','2026-01-02 03:04:06.000000','2026-01-02 03:04:07.000000','2026-01-02 03:04:08.000000',0.9,NULL,NULL,'doe^jane','101500','S1',3,0,NULL);
INSERT INTO "series" VALUES(2,'2.25.12','2.25.1001','P-0001','','Doe^Jane','A-77','20260101','CT','','','PACS','receiving',NULL,'','','','[]',1,3,NULL,NULL,0,NULL,NULL,NULL,NULL,'2026-01-02 03:05:09.000000','2026-01-02 03:05:09.000000',NULL,NULL,NULL,NULL,NULL,NULL,'doe^jane','101500','S1',3,0,NULL);
INSERT INTO "series" VALUES(3,'2.25.13','2.25.1001','P-0001','','Doe^Jane','A-77','20260101','CT','','','PACS','ready',NULL,'','','quiet','[]',1,3,NULL,NULL,0,NULL,NULL,NULL,NULL,'2026-01-02 03:05:09.000000','2026-01-02 03:05:09.000000','2026-01-02 03:05:09.000000',NULL,NULL,NULL,NULL,NULL,'doe^jane','101500','S1',3,0,NULL);
CREATE INDEX ix_series_stage ON series (stage, ready_at);
CREATE INDEX ix_series_study_instance_uid ON series (study_instance_uid);
CREATE INDEX ix_instance_series_id ON instance (series_id);
CREATE INDEX ix_report_created_at ON report (created_at);
CREATE INDEX ix_report_series_id ON report (series_id);
CREATE INDEX ix_delivery_due ON delivery (stage, next_attempt_at);
CREATE INDEX ix_delivery_report_id ON delivery (report_id);
CREATE INDEX ix_removal_ended_at ON removal (ended_at);
CREATE INDEX ix_series_urgent ON series (priority, p_absent, last_instance_at);
CREATE INDEX ix_series_ended_at ON series (ended_at);
CREATE INDEX ix_series_calling_ae ON series (calling_ae, id);
CREATE INDEX ix_association_open ON association (receiver) WHERE closed IS NULL;
CREATE INDEX ix_instance_association_id ON instance (association_id, id);
CREATE INDEX ix_commitment_delivery_id ON commitment (delivery_id);
CREATE INDEX ix_commitment_next_attempt_at ON commitment (next_attempt_at);
CREATE INDEX ix_commitment_request_next_attempt_at ON commitment_request (next_attempt_at);
CREATE VIEW worklist AS
SELECT
    s.id AS case_id,
    CASE
        WHEN s.outcome = 'positive' THEN 1
        WHEN s.outcome = 'not_analysed' THEN 2
        WHEN s.stage IN ('receiving', 'ready', 'analysing') THEN 3
        WHEN s.outcome = 'negative' THEN 4
        ELSE 5
    END AS priority,
    s.patient_id, s.issuer_of_patient_id, s.patient_name, s.accession_number, s.study_date, s.modality,
    s.series_description, s.study_instance_uid, s.series_instance_uid, s.calling_ae, s.instance_count,
    s.stage, s.outcome, s.reason, s.detail, s.evidence, s.conflicts, s.revision, s.attempts,
    r.p_left_infraclinoid_ica, r.p_right_infraclinoid_ica, r.p_left_supraclinoid_ica, r.p_right_supraclinoid_ica,
    r.p_left_mca, r.p_right_mca, r.p_acom, r.p_left_aca, r.p_right_aca, r.p_left_pcom, r.p_right_pcom,
    r.p_basilar_tip, r.p_other_posterior, r.p_present,
    r.top_location, r.diameter_mm, r.lesions, r.model, r.sop_instance_uid AS report_uid, r.path AS report_path,
    (
        SELECT CASE
            WHEN COUNT(*) = 0 THEN NULL
            WHEN SUM(CASE WHEN d.stage = 'dead' THEN 1 ELSE 0 END) > 0 THEN 'dead'
            WHEN SUM(CASE WHEN d.stage = 'pending' THEN 1 ELSE 0 END) > 0 THEN 'pending'
WHEN SUM(CASE WHEN d.stage = 'committed' THEN 0 ELSE 1 END) = 0 THEN 'committed'
            ELSE 'delivered'
        END
        FROM delivery d WHERE d.report_id = r.id
    ) AS delivery,
    s.first_instance_at, s.last_instance_at, s.ready_at, s.claimed_at, s.ended_at AS reported_at,
    (SELECT MAX(d.delivered_at) FROM delivery d WHERE d.report_id = r.id) AS delivered_at,
    r.volume_seconds, r.inference_seconds, r.report_seconds, (SELECT MAX(d.committed_at) FROM delivery d WHERE d.report_id = r.id) AS committed_at
FROM series s LEFT JOIN report r ON r.id = s.report_id;
CREATE INDEX ix_report_object_report_id ON report_object (report_id);
CREATE INDEX ix_removal_case_id ON removal (case_id);
CREATE INDEX ix_series_study_date ON series (study_date);
CREATE INDEX ix_series_name_key ON series (name_key);
CREATE INDEX ix_series_patient_id ON series (patient_id);
CREATE INDEX ix_series_accession_number ON series (accession_number);
COMMIT;
